"""The use cases of traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock_server.core import assessments
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import INT64_MAX, INT64_MIN, check_text, check_time_ms
from penstock_server.model.search_tree import Query
from penstock_server.model.traces import (
    DELETE_LIMIT,
    GET_LIMIT,
    ID_LIMIT,
    KEY_LIMIT,
    LINK_LIMIT,
    PREVIEW_LIMIT,
    SPANS_BYTES,
    VALUE_LIMIT,
    Span,
    SpanStatus,
    Trace,
    TraceState,
    check_pairs,
    check_trace_id,
    storable,
)
from penstock_server.postgres import assessments as said
from penstock_server.postgres import experiments, spans, sweep, traces
from penstock_server.postgres.database import Database
from penstock_server.postgres.search_traces import search_traces

_NS = 1_000_000  # in a ms


@dataclass(frozen=True, slots=True)
class Told:
    """What spans tell of their trace besides themselves."""

    tags: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    request_preview: str | None = None
    response_preview: str | None = None


class Traces:
    """Keeps, finds and changes traces. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database, nudge: Callable[[], None]) -> None:
        """`nudge` is called when there are files to remove."""
        self._db = db
        self._nudge = nudge

    async def put(self, caller: Caller, trace: Trace) -> Trace:
        """Keeps what a client tells of a trace, and returns it with what was known of it before.

        Telling the same again changes nothing. Raises NotFound and NotActive of the experiment.
        """
        trace = _checked(trace)
        async with self._db.transaction() if trace.assessments else self._db.connection() as conn:
            put = await traces.put(conn, caller.workspace_id, trace)
            if put is None:
                await experiments.hold_active(conn, caller.workspace_id, trace.experiment_id)
                raise NotFound("experiment", str(trace.experiment_id))
            if trace.assessments:
                await said.check_number(conn, caller.workspace_id, trace.trace_id)
            fresh, location = put
            known = [] if fresh else await traces.load(conn, caller.workspace_id, [trace.trace_id])
        return known[0] if known else replace(trace, artifact_location=location)

    async def add_spans(
        self,
        caller: Caller,
        experiment_id: ExperimentId,
        steps: Sequence[Span],
        told: Mapping[str, Told],
        run_id: str = "",
    ) -> None:
        """Keeps spans, all or none: those of a trace that is not there make one in this experiment.

        A span that comes again takes the place of the first. Traces that have ended are linked to the run, if there is
        one. Raises NotFound and NotActive of the experiment.
        """
        check_text("run_id", run_id, ID_LIMIT)
        once = {(span.trace_id, span.span_id): _checked_span(span) for span in steps}
        if not once:
            return
        of_trace: dict[str, list[Span]] = {}
        for span in once.values():
            of_trace.setdefault(span.trace_id, []).append(span)
        begun = [_follows(experiment_id, each, told.get(trace_id, Told())) for trace_id, each in of_trace.items()]
        async with self._db.connection() as conn:
            if not await spans.put(conn, caller.workspace_id, experiment_id, begun, list(once.values())):
                await experiments.hold_active(conn, caller.workspace_id, experiment_id)
                raise NotFound("experiment", str(experiment_id))
            if run_id:
                ended = [trace.trace_id for trace in begun if trace.state is not TraceState.IN_PROGRESS]
                await traces.link_run(conn, caller.workspace_id, ended, run_id)

    async def get(self, caller: Caller, trace_id: str) -> Trace:
        """One trace, without its spans. Raises NotFound."""
        found = await self.get_many(caller, [trace_id])
        if not found:
            raise NotFound("trace", trace_id)
        return found[0]

    async def get_many(
        self, caller: Caller, trace_ids: Sequence[str], within: Sequence[ExperimentId] | None = None
    ) -> list[Trace]:
        """Those of these traces that there are, in these experiments, in this order, without their spans."""
        wanted = _wanted(trace_ids)
        async with self._db.connection() as conn:
            return await traces.load(conn, caller.workspace_id, wanted, within)

    async def get_whole(
        self, caller: Caller, trace_ids: Sequence[str], within: Sequence[ExperimentId] | None = None
    ) -> list[tuple[Trace, list[Span]]]:
        """As `get_many`, with their spans: the root first, then as they began. Several have SPANS_BYTES at most."""
        wanted = _wanted(trace_ids)
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            found = await traces.load(conn, caller.workspace_id, wanted, within)
            if len(found) > 1:
                size = await spans.size(conn, caller.workspace_id, [trace.trace_id for trace in found])
                if size > SPANS_BYTES:
                    problem = f"have {size} bytes of spans; the limit is {SPANS_BYTES}: ask for fewer at once"
                    raise InvalidArgument("trace_ids", problem)
            steps = await spans.load(conn, caller.workspace_id, [trace.trace_id for trace in found])
        return [(trace, steps.get(trace.trace_id, [])) for trace in found]

    async def search(
        self, caller: Caller, query: Query, experiment_ids: Sequence[ExperimentId], limit: int, page_token: str
    ) -> tuple[list[Trace], str]:
        """One page of those that a query selects, and the token of the next. Raises InvalidPageToken."""
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            found, token = await search_traces(conn, caller.workspace_id, experiment_ids, query, limit, page_token)
            return await traces.load(conn, caller.workspace_id, found), token

    async def end(
        self,
        caller: Caller,
        trace_id: str,
        end_ms: int,
        state: TraceState,
        tags: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> Trace:
        """A trace that was told of has ended, if not before it began. Raises NotFound."""
        check_trace_id(trace_id)
        check_time_ms("timestamp_ms", end_ms)
        tags, metadata = check_pairs("tags", tags), check_pairs("metadata", metadata)
        async with self._db.connection() as conn:
            await traces.end(conn, caller.workspace_id, trace_id, end_ms, state, tags, metadata)
            found = await traces.load(conn, caller.workspace_id, [trace_id])
        if not found:
            raise NotFound("trace", trace_id)
        return found[0]

    async def set_tag(self, caller: Caller, trace_id: str, key: str, value: str) -> None:
        """Sets a tag; what is too long of the value is cut off. Raises NotFound."""
        check_trace_id(trace_id)
        ((key, value),) = check_pairs("tags", {key: value}).items()
        async with self._db.connection() as conn:
            await traces.set_tag(conn, caller.workspace_id, trace_id, key, value)

    async def delete_tag(self, caller: Caller, trace_id: str, key: str) -> None:
        """Removes a tag. Raises NotFound of the trace, and of the tag."""
        check_trace_id(trace_id)
        check_text("key", key, KEY_LIMIT, empty=False)
        async with self._db.connection() as conn:
            await traces.drop_tag(conn, caller.workspace_id, trace_id, key)

    async def link_run(self, caller: Caller, trace_ids: Sequence[str], run_id: str) -> None:
        """Links traces to a run, those that there are. Nobody asks whether there is the run."""
        if len(trace_ids) > LINK_LIMIT:
            raise InvalidArgument("trace_ids", f"has {len(trace_ids)} entries; the limit is {LINK_LIMIT}")
        wanted = [check_trace_id(each, "trace_ids") for each in trace_ids]
        check_text("run_id", run_id, ID_LIMIT, empty=False)
        async with self._db.connection() as conn:
            await traces.link_run(conn, caller.workspace_id, wanted, run_id)

    async def link_prompts(self, caller: Caller, trace_id: str, prompts: Sequence[str]) -> None:
        """Links a trace to versions of prompts, written name/version. Raises NotFound."""
        check_trace_id(trace_id)
        if len(prompts) > LINK_LIMIT:
            raise InvalidArgument("prompt_versions", f"has {len(prompts)} entries; the limit is {LINK_LIMIT}")
        for prompt in prompts:
            check_text("prompt_versions", prompt, VALUE_LIMIT)
        async with self._db.connection() as conn:
            await traces.link_prompts(conn, caller.workspace_id, trace_id, list(dict.fromkeys(prompts)))

    async def delete(
        self,
        caller: Caller,
        experiment_id: ExperimentId,
        *,
        until_ms: int | None = None,
        trace_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> int:
        """Removes traces of an experiment with all they have: these, or the oldest up to a time. How many that were."""
        wanted = None if trace_ids is None else [check_trace_id(each, "request_ids") for each in trace_ids]
        removed = 0
        while True:
            left = DELETE_LIMIT if limit is None else min(DELETE_LIMIT, limit - removed)
            async with self._db.transaction() as conn:
                gone = await traces.drop(conn, caller.workspace_id, experiment_id, until_ms, wanted, left)
                if gone:
                    await sweep.release(conn, gone)
            removed += len(gone)
            if len(gone) < DELETE_LIMIT or removed == limit:
                break
        if removed:
            self._nudge()
        return removed


def _wanted(trace_ids: Sequence[str]) -> list[str]:
    if len(trace_ids) > GET_LIMIT:
        raise InvalidArgument("trace_ids", f"has {len(trace_ids)} entries; the limit is {GET_LIMIT}")
    return list(dict.fromkeys(check_trace_id(each) for each in trace_ids))


def _checked(trace: Trace) -> Trace:
    check_trace_id(trace.trace_id)
    check_time_ms("request_time", trace.request_ms)
    if trace.execution_ms is not None and not INT64_MIN // 2 <= trace.execution_ms <= INT64_MAX // 2:
        raise InvalidArgument("execution_duration", f"{trace.execution_ms} ms is no duration")
    if trace.client_request_id is not None:
        check_text("client_request_id", trace.client_request_id, ID_LIMIT)
    return replace(
        trace,
        request_preview=_preview(trace.request_preview),
        response_preview=_preview(trace.response_preview),
        tags=check_pairs("tags", trace.tags),
        metadata=check_pairs("trace_metadata", trace.metadata),
        # Of two with one id the last.
        assessments=list({each.assessment_id: assessments.check(each) for each in trace.assessments}.values()),
    )


def _preview(text: str | None) -> str | None:
    return None if text is None else storable(text)[:PREVIEW_LIMIT]


def _checked_span(span: Span) -> Span:
    check_trace_id(span.trace_id)
    check_text("span_id", span.span_id, ID_LIMIT, empty=False)
    check_text("parent_span_id", span.parent_id or "", ID_LIMIT)
    for name, time_ns in (("start_time_unix_nano", span.start_ns), ("end_time_unix_nano", span.end_ns or 0)):
        check_time_ms(name, time_ns // _NS)
        if time_ns > INT64_MAX:
            raise InvalidArgument(name, f"{time_ns} is no time in ns")
    return span


def _follows(experiment_id: ExperimentId, steps: Sequence[Span], told: Told) -> Trace:
    """What is known of a trace by some of its spans."""
    begin = min(span.start_ns for span in steps) // _NS
    end = max((span.end_ns // _NS for span in steps if span.end_ns), default=None)
    state = TraceState.IN_PROGRESS
    for span in steps:
        if span.parent_id is None:
            state = TraceState.ERROR if span.status is SpanStatus.ERROR else TraceState.OK
    return Trace(
        trace_id=steps[0].trace_id,
        experiment_id=experiment_id,
        request_ms=begin,
        execution_ms=None if end is None else end - begin,
        state=state,
        request_preview=_preview(told.request_preview),
        response_preview=_preview(told.response_preview),
        tags=check_pairs("tags", told.tags),
        metadata=check_pairs("metadata", told.metadata),
        told=False,
    )
