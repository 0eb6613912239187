"""Whether PostgreSQL has what was logged: each call that returned, once, in order, with summaries that say the same."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

import asyncpg
import numpy as np
from numpy.typing import NDArray

from campaign import journal as words
from campaign import points, values
from campaign.journal import Journal
from campaign.writer import Part

_SHOWN = 10


@dataclass(slots=True)
class Tally:
    """What was found, and what is wrong with it. `in_flight`: points of calls that were begun and did not return."""

    points: int = 0
    lost: int = 0
    doubled: int = 0
    in_flight: int = 0
    refused: int = 0  # points that run.log did not take, and counted
    problems: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Takes another one in."""
        self.points += other.points
        self.lost += other.lost
        self.doubled += other.doubled
        self.in_flight += other.in_flight
        self.refused += other.refused
        self.problems += other.problems

    def problem(self, text: str) -> None:
        """One more; the first hundred are kept."""
        if len(self.problems) < 100:
            self.problems.append(text)


@dataclass(slots=True)
class _Logged:
    """Of one writer: the indexes that must be there, and those that may."""

    must: NDArray[np.int64]
    may: list[int]
    width: int
    per_step: int


def logged(lives: Iterable[tuple[Part, Journal]]) -> dict[str, dict[int, _Logged]]:
    """What was logged, run by run and writer by writer."""
    found: dict[str, dict[int, _Logged]] = {}
    for part, journal in sorted(lives, key=lambda life: (life[0].writer, life[0].life)):
        state = journal.words
        first, returned, begun = (int(state[word]) for word in (words.FIRST, words.RETURNED, words.BEGUN))
        must = np.arange(first, returned, dtype=np.int64)
        if refused := journal.refused():
            must = np.setdiff1d(must, np.array(refused, np.int64))
        may = [returned] if begun > returned else []
        known = found.setdefault(part.run_id, {}).get(part.writer)
        if known is None:
            found[part.run_id][part.writer] = _Logged(must, may, part.width, part.per_step)
        else:
            known.must = np.concatenate((known.must, must))
            known.may += may
    return found


async def count(dsn: str, lives: list[tuple[Part, Journal]]) -> Tally:
    """Reads all runs of these lives, and compares."""
    tally = Tally()
    conn = await asyncpg.connect(dsn)
    try:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            for run_id, writers in logged(lives).items():
                tally.add(await _count_run(conn, run_id, writers))
                await _count_refused(conn, tally, run_id, [journal for part, journal in lives if part.run_id == run_id])
            for part, journal in lives:
                await _count_texts(conn, tally, part, journal)
    finally:
        await conn.close()
    tally.refused = sum(len(journal.refused()) * part.width for part, journal in lives)
    return tally


async def _count_run(conn: asyncpg.Connection, run_id: str, writers: dict[int, _Logged]) -> Tally:
    tally = Tally()
    where = f"run {run_id}"
    width = max(logged.width for logged in writers.values())
    seen: set[str] = set()
    before: NDArray[np.int64] | None = None  # the metric before without its position: the next has the same frames
    verdict = Tally()
    async for metric in points.read(conn, run_id):
        seen.add(metric.name)
        tally.points += len(metric.values)
        _check_summary(tally, f"{where}, {metric.name}", metric)
        coded = metric.values.astype(np.int64)
        position = values.position_of(metric.name)
        if not (np.array_equal(coded, metric.values) and (values.place_of(coded) == position).all()):
            tally.problem(f"{where}, {metric.name}: values that belong to no point of it")
            continue
        coded -= position
        if before is None or not np.array_equal(coded, before):
            verdict = _check_metric(f"{where}, {metric.name}", position, metric.steps, coded, writers)
            before = coded
        tally.lost += verdict.lost
        tally.doubled += verdict.doubled
        tally.in_flight += verdict.in_flight
        tally.problems += verdict.problems[: max(0, 100 - len(tally.problems))]
        verdict.problems = []
    any_must = any(len(logged.must) for logged in writers.values())
    if any_must and seen != set(values.names(width)):
        missing = set(values.names(width)) - seen
        tally.lost += sum(
            len(logged.must)
            for logged in writers.values()
            for name in missing
            if values.position_of(name) < logged.width
        )
        tally.problem(f"{where}: {len(missing)} metrics are missing, {len(seen - set(values.names(width)))} unknown")
    return tally


def _check_metric(
    where: str, position: int, steps: NDArray[np.int64], coded: NDArray[np.int64], writers: dict[int, _Logged]
) -> Tally:
    """One metric's points, in the order that they are read in."""
    verdict = Tally()
    owners, indexes = values.writer_of(coded), values.index_of(coded)  # type: ignore[arg-type]
    for writer in np.setdiff1d(owners, list(writers)).tolist():
        verdict.problem(f"{where}: points of writer {writer}, who did not log here")
    for writer, logged in writers.items():
        mine = owners == writer
        found = indexes[mine]
        must = logged.must if position < logged.width else logged.must[:0]
        if not np.array_equal(steps[mine], found // logged.per_step):
            verdict.problem(f"{where}: writer {writer}: steps that are not those of the calls")
        if np.array_equal(found, must):
            continue
        unique, counts = np.unique(found, return_counts=True)
        doubled = unique[counts > 1]
        lost = np.setdiff1d(must, unique)
        more = np.setdiff1d(unique, must)
        alien = np.setdiff1d(more, logged.may)
        verdict.doubled += int((counts - 1).sum())
        verdict.lost += len(lost)
        verdict.in_flight += len(more) - len(alien)
        for what, which in (("lost", lost), ("doubled", doubled), ("never logged", alien)):
            if len(which):
                verdict.problem(f"{where}: writer {writer}: {len(which)} {what}: {_shown(which)}")
        if not (np.diff(found) > 0).all() and not len(doubled):
            verdict.problem(f"{where}: writer {writer}: out of order at {_shown(found[1:][np.diff(found) <= 0])}")
    return verdict


def _check_summary(tally: Tally, where: str, metric: points.Metric) -> None:
    last = None
    if len(metric.steps):
        step, time_ms = metric.steps[-1], metric.times_ms[-1]
        greatest = metric.values[(metric.steps == step) & (metric.times_ms == time_ms)].max()
        last = (int(step), int(time_ms), float(greatest))
    real = (
        len(metric.values),
        last,
        float(metric.values.min(initial=np.inf)),
        float(metric.values.max(initial=-np.inf)),
    )
    told = (metric.count, metric.last, metric.min_value, metric.max_value)
    if real != told:
        tally.problem(f"{where}: (count, last, min, max) are {real}, the summary says {told}")


async def _count_refused(conn: asyncpg.Connection, tally: Tally, run_id: str, journals: list[Journal]) -> None:
    """What the run shows of records that are not there."""
    row = await conn.fetchrow("SELECT refused_records, lost_records FROM runs WHERE id = $1", uuid.UUID(run_id))
    if row is None:
        tally.problem(f"run {run_id} is not there at all")
        return
    refused, lost = row
    if lost:
        tally.problem(f"run {run_id}: {lost} records were told lost")
    if all(journal.words[words.ENDED] for journal in journals):
        told = sum(journal.words[words.REFUSED] for journal in journals)
        if refused != told:
            tally.problem(f"run {run_id}: {told} values were refused, the run says {refused}")


async def _count_texts(conn: asyncpg.Connection, tally: Tally, part: Part, journal: Journal) -> None:
    """Params and tags of one life."""
    if not part.every:
        return
    first, returned, begun = (int(journal.words[word]) for word in (words.FIRST, words.RETURNED, words.BEGUN))
    every = range(-(-first // part.every) * part.every, returned, part.every)
    must = dict(values.param(part.writer, index) for index in every)
    may = dict(values.param(part.writer, index) for index in range(returned, begun) if index % part.every == 0)
    rows = await conn.fetch(
        "SELECT key, value FROM run_params WHERE run_id = $1 AND key = ANY($2)",
        uuid.UUID(part.run_id),
        [*must, *may],
    )
    found = dict(rows)
    if missing := must.keys() - found.keys():
        tally.problem(f"writer {part.writer}: {len(missing)} params are lost: {sorted(missing)[:_SHOWN]}")
    if wrong := {key for key in found if found[key] != (must | may)[key]}:
        tally.problem(f"writer {part.writer}: params with other values: {sorted(wrong)[:_SHOWN]}")
    tag = await conn.fetchval(
        "SELECT value FROM run_tags WHERE run_id = $1 AND key = $2",
        uuid.UUID(part.run_id),
        values.tag(part.writer, part.life),
    )
    last = [str(index) for index in [*every, *map(int, may.values())]][-1 - len(may) :]
    if last and tag not in last and not (tag is None and not must):
        tally.problem(f"writer {part.writer}: tag is {tag!r}, set last to {last}")


def _shown(which: NDArray[np.int64]) -> str:
    more = f", … {int(which[-1])}" if len(which) > _SHOWN else ""
    return ", ".join(map(str, which[:_SHOWN].tolist())) + more
