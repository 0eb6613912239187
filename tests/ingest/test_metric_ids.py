"""Metric ids are given once, however many writers ask at the same time."""

from __future__ import annotations

import asyncio

import pytest
from frames import make_run

from penstock_server.model.errors import NotFound
from penstock_server.model.runs import new_run_id
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
