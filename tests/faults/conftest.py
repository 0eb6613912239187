"""Penstock is loaded first: gRPC reads what it sets, and else does not live through a fork (PostgreSQL's is one)."""

import penstock  # noqa: F401
