"""The books of the artifacts: what the tables say, and what is in the store, must be the same to the last byte.

Counted when nothing is under way and the sweeper has been there, so that whatever is too much is an orphan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import asyncpg

_ROWS = """
SELECT a.owner_id, a.path, a.size, a.sha256, b.id, b.key, b.state, b.size AS blob_size, b.sha256 AS blob_sha256,
       b.owner_id AS blob_owner_id, b.path AS blob_path
FROM artifacts a LEFT JOIN artifact_blobs b ON b.id = a.blob_id
"""
_BEYOND = "SELECT id, key, state FROM artifact_blobs WHERE id NOT IN (SELECT blob_id FROM artifacts)"
_PARTS = "SELECT blob_id, count(*) FROM artifact_parts GROUP BY blob_id"


class Depot(Protocol):
    """A store as it is, seen from beside the server."""

    def objects(self) -> Mapping[str, int]:
        """All keys below the root, whatever they belong to, with their sizes."""

    def begun(self) -> list[str]:
        """What else takes up room: uploads in parts that have no end."""

    def read(self, key: str) -> bytes:
        """An object."""


@dataclass(slots=True)
class Accounts:
    """What was found."""

    files: int = 0
    bytes: int = 0
    orphans: list[str] = field(default_factory=list)  # in the store or in the tables, and of no artifact
    wrong: list[str] = field(default_factory=list)  # artifacts that are not what their rows say

    @property
    def problems(self) -> list[str]:
        """All of it in words; empty when the books are right."""
        return [*(f"orphan: {each}" for each in self.orphans), *(f"wrong: {each}" for each in self.wrong)]


async def accounts(dsn: str, depot: Depot) -> Accounts:
    """Counts everything: of all runs, and each byte."""
    conn = await asyncpg.connect(dsn)
    try:
        rows = await conn.fetch(_ROWS)
        beyond = await conn.fetch(_BEYOND)
        parts = await conn.fetch(_PARTS)
    finally:
        await conn.close()
    found = Accounts()
    objects, known = depot.objects(), set()
    for row in rows:
        found.files += 1
        found.bytes += row["size"]
        known.add(row["key"])
        found.wrong += [f"{row['path']}: {problem}" for problem in _wrong(row, objects, depot)]
    found.orphans += [f"row of artifact_blobs in state {row['state']}: {row['key']}" for row in beyond]
    found.orphans += [f"{row['count']} rows of artifact_parts of {row['blob_id']}" for row in parts]
    found.orphans += [f"object {key} of {size} bytes" for key, size in objects.items() if key not in known]
    found.orphans += [f"upload {each}" for each in depot.begun()]
    return found


def _wrong(row: asyncpg.Record, objects: Mapping[str, int], depot: Depot) -> list[str]:
    if row["id"] is None:
        return ["has no row of artifact_blobs"]
    problems = []
    if row["state"] != 2:
        problems.append(f"its blob is in state {row['state']}")
    if (row["blob_owner_id"], row["blob_path"]) != (row["owner_id"], row["path"]):
        problems.append(f"its blob is of {row['blob_path']} of {row['blob_owner_id']}")
    if row["blob_size"] not in (None, row["size"]) or row["blob_sha256"] not in (None, row["sha256"]):
        problems.append("its blob has another size or digest")
    if row["key"] not in objects:
        return [*problems, f"{row['key']} is not in the store"]
    data = depot.read(row["key"])
    if len(data) != row["size"]:
        problems.append(f"is {len(data)} bytes long instead of {row['size']}")
    elif hashlib.sha256(data).digest() != row["sha256"]:
        problems.append("has another SHA-256 than its row")
    return problems
