"""Metric ids are given once, however many writers ask at the same time."""

from __future__ import annotations

import asyncio

import pytest
from frames import make_run

from penstock_server.model.changes import RunRef
from penstock_server.model.errors import NotFound
from penstock_server.model.runs import RunId, new_run_id
from penstock_server.postgres import metrics
from penstock_server.postgres.database import Database


async def test_racing_writers_agree(db: Database) -> None:
    run = await make_run(db)
    asked = [[f"m{(start + i) % 40}" for i in range(25)] for start in range(40)]
    answers = await asyncio.gather(*(metrics.metric_ids(db, run.run_id, names) for names in asked))
    together: dict[str, int] = {}
    for names, answer in zip(asked, answers, strict=True):
        assert sorted(answer) == sorted(names)
        for name, metric_id in answer.items():
            assert together.setdefault(name, metric_id) == metric_id
    assert len(set(together.values())) == 40


async def test_a_run_that_is_not_there(db: Database) -> None:
    with pytest.raises(NotFound):
        await metrics.metric_ids(db, new_run_id(), ["loss"])


async def test_names_are_given_ids_while_others_look_at_the_run(dsn: str) -> None:
    """A statement that locked the run's row and then changed it was in a deadlock with these in nearly every round."""
    db = await Database.open(dsn, max_connections=30)

    async def named(run_id: RunId, turn: int) -> int:
        await asyncio.sleep(0.0005 * (turn % 5))
        return (await metrics.metric_ids(db, run_id, ["loss"]))["loss"]

    async def looked_at(run: RunRef, turn: int) -> None:
        await asyncio.sleep(0.0005 * (turn % 5))
        for number in range(3):
            async with db.transaction() as conn:
                tag = (run.run_id, run.workspace_id, run.experiment_id, f"{turn}/{number}")
                await conn.execute("INSERT INTO run_tags VALUES ($1, $2, $3, $4, '')", *tag)
                await conn.execute("SELECT")

    try:
        for _ in range(10):
            run = await make_run(db)
            async with asyncio.TaskGroup() as group:
                naming = [group.create_task(named(run.run_id, turn)) for turn in range(20)]
                for turn in range(10):
                    group.create_task(looked_at(run, turn))
            assert len({task.result() for task in naming}) == 1
    finally:
        await db.close()
