"""The gRPC door. grpc and protobuf are known here and nowhere else."""

import os

# gRPC reads this when it is imported. The only children of ours are other programs; without this it would log each.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")  # noqa: TID251  # written for a library, not read
