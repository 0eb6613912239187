"""The count of the fault campaigns finds what is lost, doubled, out of order, never logged or told wrong."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import numpy as np
import pytest
from campaign import count, values
from campaign import journal as words
from campaign.count import Tally
from campaign.journal import Journal
from campaign.writer import Part

_WIDTH = 2
_RUN = uuid.UUID(int=7)


async def stored(dsn: str, indexes: Sequence[int], *, writer: int = 1, last: int | None = None) -> None:
    """A run as the server would have it after these calls; `last` is what its summary takes for the last."""
    frames = [list(values.frame(writer, index, values.names(_WIDTH)).values()) for index in indexes]
    steps = np.array(indexes, "<i8")
    summary = [list(values.frame(writer, last, values.names(_WIDTH)).values())] if last is not None else frames[-1:]
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute(
            "INSERT INTO runs (id, workspace_id, experiment_id, name, status, start_ms, created_ms, updated_ms)"
            " VALUES ($1, 1, 0, 'counted', 1, 0, 0, 0)",
            _RUN,
        )
        for position, name in enumerate(values.names(_WIDTH)):
            column = [frame[position] for frame in frames]
            await conn.execute(
                "INSERT INTO run_metrics (run_id, workspace_id, experiment_id, metric_id, name, count, last_step,"
                " last_value, min_value, max_value) VALUES ($1, 1, 0, $2, $3, $4, $5, $6, $7, $8)",
                *(_RUN, position, name, len(column), max(indexes), summary[0][position], min(column), max(column)),
            )
        await conn.execute(
            "INSERT INTO metric_segments (run_id, workspace_id, frames, min_step, max_step, shape_sizes, metric_ids,"
            " steps, times_ms, metric_values) VALUES ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9)",
            *(_RUN, len(indexes), min(indexes), max(indexes), [_WIDTH], list(range(_WIDTH))),
            *(steps.tobytes(), np.zeros_like(steps).tobytes(), np.array(frames, "<f8").tobytes()),
        )
    finally:
        await conn.close()


def life(directory: Path, returned: int, begun: int | None = None, *, per_step: int = 1) -> tuple[Part, Journal]:
    """A writer that has logged so many calls."""
    part = Part(1, 0, str(_RUN), "", "", "", width=_WIDTH, per_step=per_step, every=0)
    journal = Journal(directory / "w.journal")
    journal.words[words.RETURNED], journal.words[words.BEGUN] = returned, begun or returned
    return part, journal


async def test_what_is_right_is_found_right(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, range(5))
    assert await count.count(dsn, [life(tmp_path, 5)]) == Tally(points=5 * _WIDTH)


async def test_the_call_under_way_may_be_there_or_not(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, range(5))
    assert await count.count(dsn, [life(tmp_path, 4, 5)]) == Tally(points=5 * _WIDTH, in_flight=_WIDTH)
    assert await count.count(dsn, [life(tmp_path, 5, 6)]) == Tally(points=5 * _WIDTH)


async def test_a_refused_call_is_not_missed(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, [0, 1, 3, 4])
    part, journal = life(tmp_path, 5)
    assert (await count.count(dsn, [(part, journal)])).lost == _WIDTH
    journal.refuse(2)
    assert await count.count(dsn, [(part, journal)]) == Tally(points=4 * _WIDTH, refused=_WIDTH)


@pytest.mark.parametrize(
    ("indexes", "lost", "doubled", "problem"),
    [
        ([0, 1, 3, 4], 1, 0, "1 lost: 2"),
        ([0, 1, 2, 2, 3, 4], 0, 1, "1 doubled: 2"),
        ([0, 1, 2, 3, 4, 5], 0, 0, "1 never logged: 5"),
        ([0, 1, 1, 3, 4], 1, 1, "1 lost: 2"),  # as many as there should be
    ],
)
async def test_what_is_wrong_is_found(
    dsn: str, tmp_path: Path, indexes: list[int], lost: int, doubled: int, problem: str
) -> None:
    await stored(dsn, indexes)
    tally = await count.count(dsn, [life(tmp_path, 5)])
    assert (tally.lost, tally.doubled) == (lost * _WIDTH, doubled * _WIDTH)
    assert any(problem in told for told in tally.problems)


async def test_an_order_that_is_not_that_of_the_calls_is_found(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, [0, 2, 1, 3, 4])
    # By their steps they are in order; of calls with one step only their arrival tells.
    assert not (await count.count(dsn, [life(tmp_path, 5)])).problems
    tally = await count.count(dsn, [life(tmp_path, 5, per_step=1_000)])
    assert any("steps that are not those of the calls" in told for told in tally.problems)


async def test_calls_of_one_step_stay_in_their_order(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, [0, 2, 1])
    conn = await asyncpg.connect(dsn)
    await conn.execute("UPDATE metric_segments SET steps = $1, min_step = 0, max_step = 0", bytes(3 * 8))
    await conn.execute("UPDATE run_metrics SET last_step = 0")
    await conn.close()
    tally = await count.count(dsn, [life(tmp_path, 3, per_step=3)])
    assert any("out of order at 1" in told for told in tally.problems)


async def test_a_summary_that_says_otherwise_is_found(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, range(5), last=3)
    tally = await count.count(dsn, [life(tmp_path, 5)])
    assert any("the summary says" in told for told in tally.problems)


async def test_points_of_somebody_else_are_found(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, range(5), writer=2)
    tally = await count.count(dsn, [life(tmp_path, 5)])
    assert tally.lost == 5 * _WIDTH
    assert any("writer 2, who did not log here" in told for told in tally.problems)


async def test_a_run_without_a_point_has_lost_all(dsn: str, tmp_path: Path) -> None:
    await stored(dsn, range(5))
    conn = await asyncpg.connect(dsn)
    await conn.execute("DELETE FROM metric_segments")
    await conn.execute("UPDATE run_metrics SET count = 0")
    await conn.close()
    assert (await count.count(dsn, [life(tmp_path, 5)])).lost == 5 * _WIDTH


def test_a_journal_outlives_its_writer(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "w.journal")
    journal.words[words.RETURNED] = 3
    journal.took(1_000_000, 2)
    again = Journal(tmp_path / "w.journal")
    assert again.words[words.RETURNED] == 3
    told = words.latency([again])
    assert (told.calls, told.longest, told.over_1ms) == (1, 1.0, 0)
    journal.took(1_400_000, 3)
    assert words.latency([again]).over_1ms == 1
