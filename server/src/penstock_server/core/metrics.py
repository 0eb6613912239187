"""Metrics: single batches in, and histories, series and summaries out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock_server.ingest.framing import framed
from penstock_server.ingest.ingest import Ingest
from penstock_server.model import pages
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import InvalidArgument, InvalidPageToken, NotActive
from penstock_server.model.limits import INT64_MAX, INT64_MIN, check_text, check_time_ms
from penstock_server.model.metrics import KEY_LIMIT, MetricSummary, Point, check_key
from penstock_server.model.runs import REQUEST_ID_LIMIT, RunId, check_params, check_tags, format_run_id
from penstock_server.model.streams import Update
from penstock_server.postgres import chronology, history, metrics, runs, sample, series
from penstock_server.postgres.chronology import Moment
from penstock_server.postgres.database import Database
from penstock_server.postgres.history import Position
from penstock_server.postgres.points import NO_POINTS, Columns
from penstock_server.postgres.series import Series

__all__ = ["Columns", "Metrics", "Series"]

BATCH_METRICS = 10_000
BATCH_TEXTS = 1_000
PAGE_DEFAULT = 25_000
PAGE_LIMIT = 100_000
# What is answered at most when all of a history is asked for by time: about 20 MB of JSON.
CHRONOLOGY_LIMIT = 250_000
WIDTH_DEFAULT = 1_000
WIDTH_LIMIT = 10_000
SERIES_RUNS = 200
SERIES_NAMES = 200
SERIES_PAIRS = 2_000
SUMMARY_RUNS = 10_000

# Runs that batches were last logged to: some 3 MB.
_RUNS_KNOWN = 10_000
# A message of a streamed history: 24 bytes a point, well below the message limit.
_STREAM_PAGE = 200_000
_REQUESTS = uuid.UUID("5b0ba8a4-2f6b-4a5e-9f0e-0d4a1f9f6c11")


class Metrics:
    """The use cases of MetricService but for the stream."""

    def __init__(self, db: Database, ingest: Ingest) -> None:
        self._db = db
        self._ingest = ingest
        self._known: dict[tuple[WorkspaceId, RunId], RunRef] = {}

    async def log_batch(
        self,
        caller: Caller,
        run_id: RunId,
        points: Sequence[Point],
        params: dict[str, str],
        tags: dict[str, str],
        request_id: str = "",
    ) -> None:
        """Logs all of it or nothing; durable and visible when this returns.

        Raises NotFound, NotActive, ParamChanged, InvalidArgument, and Busy or Unavailable when it may be tried again.
        """
        if not (points or params or tags):
            raise InvalidArgument("request", "is empty; a batch has at least one metric, param or tag")
        for what, given, limit in (
            ("metrics", len(points), BATCH_METRICS),
            ("params", len(params), BATCH_TEXTS),
            ("tags", len(tags), BATCH_TEXTS),
        ):
            if given > limit:
                raise InvalidArgument(what, f"{given} are too many for one batch; the limit is {limit}: send several")
        check_text("request_id", request_id, REQUEST_ID_LIMIT)
        for position, point in enumerate(points):
            check_time_ms(f"metrics[{position}].time_ms", point.time_ms)
        names = [point.name for point in points]
        columns = Columns(
            np.array([point.step for point in points], np.int64),
            np.array([point.time_ms for point in points], np.int64),
            np.array([point.value for point in points], np.float64),
        )
        await self.log_columns(caller, run_id, names, columns, params, tags, request_id)

    async def log_columns(
        self,
        caller: Caller,
        run_id: RunId,
        names: Sequence[str],
        points: Columns,
        params: dict[str, str],
        tags: dict[str, str],
        request_id: str = "",
    ) -> None:
        """As `log_batch`, of points in columns, each of the metric that `names` says; their times are checked."""
        check_params(params)
        check_tags(tags)
        run = self._known.get((caller.workspace_id, run_id)) or await self._locate(caller, run_id)
        frames = []
        if names:
            frames.append(await framed(self._ingest, run_id, names, points.steps, points.times_ms, points.values))
        updates = [Update(True, key, value) for key, value in params.items()]
        updates += [Update(False, key, value) for key, value in tags.items()]
        request = uuid.uuid5(_REQUESTS, f"{format_run_id(run_id)} {request_id}") if request_id else None
        try:
            await self._ingest.log(caller, run, frames, updates, request)
        except NotActive:
            await self._locate(caller, run_id)  # it may have been removed for good
            raise

    async def history(
        self,
        caller: Caller,
        run_id: RunId,
        name: str,
        start_step: int | None = None,
        end_step: int | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[Columns, str]:
        """One page of a metric's points in order, and the token of the next. Raises NotFound, InvalidArgument."""
        size = _within("page_size", page_size, PAGE_DEFAULT, PAGE_LIMIT)
        low, high = _steps(start_step, end_step)
        query = ("history", format_run_id(run_id), name, start_step, end_step)
        check_key("name", name)
        after = _position(pages.decode(query, page_token, ["int8"] * 3)) if page_token else None
        metric_id = (await self._find(caller, run_id, [name])).get(name)
        if metric_id is None:
            return NO_POINTS, ""
        page = await history.read_page(self._db, run_id, metric_id, low, high, after, size)
        end = page.end
        return page.points, pages.encode(query, (end.step, end.time_ms, end.given)) if end else ""

    async def chronology(
        self, caller: Caller, run_id: RunId, name: str, page_size: int, page_token: str = ""
    ) -> tuple[Columns, str]:
        """One page of a metric's points by (time, step, value), each once, and the token of the next.

        A run or a metric that is not there has no points. Raises InvalidArgument, InvalidPageToken.
        """
        check_text("metric_key", name, KEY_LIMIT)
        query = ("chronology", format_run_id(run_id), name)
        after = _moment(pages.decode(query, page_token, ["int8", "int8", "float8", "bool"])) if page_token else None
        async with self._db.connection() as conn:
            found = await metrics.find(conn, caller.workspace_id, [run_id], [name])
        if not found:
            return NO_POINTS, ""
        size = min(page_size, CHRONOLOGY_LIMIT)
        points, end = await chronology.read_page(self._db, run_id, found[run_id, name], after, size)
        return points, pages.encode(query, (end.time_ms, end.step, end.value, end.nan)) if end else ""

    async def sampled(
        self,
        caller: Caller,
        run_ids: Sequence[RunId],
        name: str,
        start_step: int | None,
        end_step: int | None,
        width: int,
    ) -> AsyncIterator[tuple[RunId, Columns]]:
        """At most `width` of a metric's points by (step, time, value), run after run; of those that have it.

        They are as many points apart from each other as can be; the first and the last are among them. Where there are
        very many, some are passed over while they are read, so that the distances are not quite even. Raises
        InvalidArgument.
        """
        check_text("metric_key", name, KEY_LIMIT)
        low, high = _steps(start_step, end_step)
        async with self._db.connection() as conn:
            found = await metrics.find(conn, caller.workspace_id, list(set(run_ids)), [name])
        for run_id in run_ids:
            metric_id = found.get((run_id, name))
            if metric_id is not None:
                points = await sample.read(self._db, run_id, metric_id, low, high)
                yield run_id, points.take(_evenly(len(points), width))

    async def stream_history(
        self,
        caller: Caller,
        run_id: RunId,
        names: Sequence[str] = (),
        start_step: int | None = None,
        end_step: int | None = None,
    ) -> AsyncIterator[tuple[str, Columns]]:
        """All points of these metrics (none named: of all), metric after metric, each in order. Raises NotFound."""
        _check_names(names)
        low, high = _steps(start_step, end_step)
        found = await self._find(caller, run_id, names or None)
        for name in names or sorted(found):
            after: Position | None = None
            while name in found:
                page = await history.read_page(self._db, run_id, found[name], low, high, after, _STREAM_PAGE)
                if len(page.points):
                    yield name, page.points
                after = page.end
                if after is None:
                    break

    async def series(
        self,
        caller: Caller,
        run_ids: Sequence[RunId],
        names: Sequence[str],
        start_step: int | None = None,
        end_step: int | None = None,
        width: int = 0,
    ) -> list[Series]:
        """Metrics reduced to at most `width` buckets each. Raises InvalidArgument."""
        run_ids, names = list(dict.fromkeys(run_ids)), list(dict.fromkeys(names))
        if not 1 <= len(run_ids) <= SERIES_RUNS:
            raise InvalidArgument("run_ids", f"1 to {SERIES_RUNS} runs, not {len(run_ids)}")
        if not 1 <= len(names) <= SERIES_NAMES:
            raise InvalidArgument("names", f"1 to {SERIES_NAMES} metrics, not {len(names)}")
        if len(run_ids) * len(names) > SERIES_PAIRS:
            raise InvalidArgument("names", f"at most {SERIES_PAIRS} pairs of run and metric; ask in parts")
        _check_names(names)
        width = _within("width", width, WIDTH_DEFAULT, WIDTH_LIMIT)
        _steps(start_step, end_step)
        return await series.read(self._db, caller.workspace_id, run_ids, names, start_step, end_step, width)

    async def summaries(
        self, caller: Caller, run_ids: Sequence[RunId], names: Sequence[str] = ()
    ) -> list[tuple[RunId, list[MetricSummary]]]:
        """The summaries of these metrics (none named: of all) of these runs, in the order of `run_ids`.

        Raises InvalidArgument.
        """
        if not 1 <= len(run_ids) <= SUMMARY_RUNS:
            raise InvalidArgument("run_ids", f"1 to {SUMMARY_RUNS} runs, not {len(run_ids)}")
        _check_names(names)
        async with self._db.connection() as conn:
            found = await metrics.summaries(conn, caller.workspace_id, run_ids, names or None)
        return [(run_id, found.get(run_id, [])) for run_id in run_ids]

    async def _locate(self, caller: Caller, run_id: RunId) -> RunRef:
        """Where an active run belongs, which never changes; whether it is active is seen when a batch is committed."""
        async with self._db.connection() as conn:
            run = await runs.locate_active(conn, caller.workspace_id, run_id)
        self._known[caller.workspace_id, run_id] = run
        if len(self._known) > _RUNS_KNOWN:
            del self._known[next(iter(self._known))]
        return run

    async def _find(self, caller: Caller, run_id: RunId, names: Sequence[str] | None) -> dict[str, int]:
        async with self._db.connection() as conn:
            found = await metrics.find(conn, caller.workspace_id, [run_id], names)
            if not found:
                await runs.locate(conn, caller.workspace_id, run_id)  # a run without points, or no run
        return {name: metric_id for (_, name), metric_id in found.items()}


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        check_key("names", name)


def _evenly(count: int, width: int) -> NDArray[np.intp]:
    """`width` positions out of `count`: the first ones of as many even parts, of the last part its last."""
    if count <= width:
        return np.arange(count)
    # Of parts that cannot be even the longer ones come first.
    each, longer = divmod(count, width)
    parts = np.arange(width)
    found = parts * each + np.minimum(parts, longer)
    found[-1] = count - 1
    return found


def _moment(key: list[pages.Key]) -> Moment:
    match key:
        case [int(time_ms), int(step), float(value), bool(nan)]:
            return Moment(time_ms, step, value, nan)
    raise InvalidPageToken


def _position(key: list[pages.Key]) -> Position:
    match key:
        case [int(step), int(time_ms), int(given)]:
            return Position(step, time_ms, given)
    raise InvalidPageToken


def _within(where: str, given: int, default: int, limit: int) -> int:
    if not 0 <= given <= limit:
        raise InvalidArgument(where, f"{given} is not within 1 to {limit} (0: {default})")
    return given or default


def _steps(start_step: int | None, end_step: int | None) -> tuple[int, int]:
    low = INT64_MIN if start_step is None else start_step
    high = INT64_MAX if end_step is None else end_step
    if low > high:
        raise InvalidArgument("start_step", f"{low} is after end_step {high}")
    return low, high
