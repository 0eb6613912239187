"""Writers' batches made from plain logs, an Ingest to take them, and what is expected to be read back."""

from __future__ import annotations

import asyncio
import math
import struct
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from penstock_server.ingest.ingest import Ingest
from penstock_server.ingest.writer import Writer
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import PenstockError
from penstock_server.model.experiments import DEFAULT_EXPERIMENT
from penstock_server.model.runs import RunId, new_run_id
from penstock_server.model.streams import Batch, Event, Hello, WriterId
from penstock_server.postgres.database import Database

CALLER = Caller("tester", WorkspaceId(1))

Log = tuple[dict[str, float], int, int]  # values by name, step, time in ms


async def make_run(db: Database) -> RunRef:
    """A running run of the default experiment, with nothing in it."""
    run_id = new_run_id()
    async with db.connection() as conn:
        await conn.execute(
            "INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms) "
            "VALUES ($1, 1, 0, 'test', 1, 0, 0, 0)",
            run_id,
        )
    return RunRef(CALLER.workspace_id, DEFAULT_EXPERIMENT, run_id)


def hello(run: RunRef, writer_id: WriterId | None = None, epoch: int = 1) -> Hello:
    return Hello(1, run.run_id, None, writer_id or WriterId(uuid.uuid4()), epoch)


@dataclass
class Sender:
    """Numbers logs and packs them as a client does; shapes are defined before their first use."""

    shapes: dict[tuple[str, ...], int] = field(default_factory=dict)
    seq: int = 1

    def batch(self, logs: Sequence[Log]) -> Batch:
        new: list[tuple[str, ...]] = []
        numbers: list[int] = []
        for values, _, _ in logs:
            names = tuple(values)
            if names not in self.shapes:
                self.shapes[names] = len(self.shapes)
                new.append(names)
            numbers.append(self.shapes[names])
        floats = [value for values, _, _ in logs for value in values.values()]
        batch = Batch(
            self.seq,
            len(logs),
            new,
            struct.pack(f"<{len(logs)}I", *numbers),
            struct.pack(f"<{len(logs)}q", *(step for _, step, _ in logs)),
            struct.pack(f"<{len(logs)}q", *(time for _, _, time in logs)),
            struct.pack(f"<{len(floats)}d", *floats),
            [],
        )
        self.seq += len(logs)
        return batch


def expected(logs: Sequence[Log]) -> dict[str, list[tuple[int, int, float]]]:
    """Each metric's points as (step, time, value), by step, time and arrival."""
    points: dict[str, list[tuple[int, int, float]]] = {}
    for values, step, time in logs:
        for name, value in values.items():
            points.setdefault(name, []).append((step, time, value))
    return {name: sorted(found, key=lambda point: point[:2]) for name, found in points.items()}


def same(left: float, right: float) -> bool:
    """Equal to the bit, but that every NaN is alike."""
    return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))


def same_points(left: Sequence[tuple[int, int, float]], right: Sequence[tuple[int, int, float]]) -> bool:
    return len(left) == len(right) and all(
        a[:2] == b[:2] and same(a[2], b[2]) for a, b in zip(left, right, strict=True)
    )


async def plain_sql(db: Database, run_id: RunId) -> dict[str, list[tuple[int, int, float]]]:
    """What the view metric_points shows of a run; equal steps and times in no particular order."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    async with db.connection() as conn:
        rows = await conn.fetch("SELECT name, step, time_ms, value FROM metric_points WHERE run_id = $1", run_id)
    for name, step, time, value in rows:
        found.setdefault(name, []).append((int(step), int(time), value))
    return found


@asynccontextmanager
async def working(db: Database, budget: int = 1 << 20) -> AsyncIterator[Ingest]:
    """An Ingest at work, as one replica has it."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ingest = Ingest(db, budget)
        task = group.create_task(ingest.run())
        yield ingest
        task.cancel()


def logs(first: int, count: int) -> list[Log]:
    return [({"loss": 1 / (step + 1), "acc": step / 10}, step, step) for step in range(first, first + count)]


async def told(writer: Writer) -> list[Event]:
    """What the writer has been told so far."""
    events: list[Event] = []
    with suppress(TimeoutError, PenstockError):
        async with asyncio.timeout(0.2):
            async for event in writer.events():
                events.append(event)  # noqa: PERF401  # what came before the end is wanted too
    return events
