"""Run ids, made by the client so that a run can begin before the server is reached."""

from __future__ import annotations

import os
import time
import uuid

# Ours alone; what is derived from it must never change.
_NAMESPACE = uuid.UUID("6f8f5d0a-53a1-5c55-9c5b-6a0c6f3f1d27")


def new_run_id() -> str:
    """A UUIDv7: runs made one after another lie side by side."""
    ms = time.time_ns() // 1_000_000
    bits = (ms & (1 << 48) - 1) << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    return uuid.UUID(int=bits & ~(0x3 << 62) | 0x2 << 62).hex


def shared_run_id(workspace: str, experiment: str, key: str) -> str:
    """A UUIDv5: all processes that are given the same key agree on it, without asking each other."""
    return uuid.uuid5(_NAMESPACE, f"{workspace}\n{experiment}\n{key}").hex


def parse_run_id(text: str) -> str:
    """A run id as the server writes it: 32 hexadecimal digits. Raises ValueError."""
    try:
        if len(text) not in (32, 36):
            raise ValueError
        return uuid.UUID(text).hex
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a run id (32 hexadecimal digits)") from None
