"""Traces, as MLflow's clients know them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from penstock_server.core.artifacts import Artifacts
from penstock_server.core.traces import Traces
from penstock_server.mlflow import ids, pages, spans, trace_infos
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint, Reply
from penstock_server.mlflow.errors import MlflowError, invalid, missing
from penstock_server.model import search
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.artifacts import Artifact
from penstock_server.model.errors import InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.owners import parse_owner
from penstock_server.model.traces import Span, Trace

_HERE = "3.0/mlflow/traces"
_OLD = "2.0/mlflow/traces"
_DEFAULT, _MOST = 100, 500  # of a page
FILE_LIMIT = 64 << 20  # bytes of a trace's file that is answered at once
# Which the server sets.
_SYSTEM = frozenset((trace_infos.SPANS, "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure"))
_DELETABLE = "mlflow.trace.archivalFailure"
# How long an answer waits for spans that are still on their way, in seconds.
_PAUSES = (0.2, 0.5, 1.0)


class TraceEndpoints:
    """The endpoints of traces, but for those of MLflow 2."""

    def __init__(self, traces: Traces, artifacts: Artifacts) -> None:
        self._traces = traces
        self._artifacts = artifacts

    def __iter__(self) -> Iterator[Endpoint]:
        read, write = Permission.READ, Permission.WRITE
        yield Endpoint("POST", _HERE, self._start, write)
        yield Endpoint("GET", f"{_HERE}/get", self._get, read)
        yield Endpoint("GET", f"{_HERE}/batchGet", self._batch_get, read)
        yield Endpoint("POST", f"{_HERE}/batchGetInfos", self._batch_get_infos, read)
        yield Endpoint("POST", f"{_HERE}/search", self._search, read)
        yield Endpoint("GET", f"{_HERE}/{{trace_id}}", self._get_info, read)
        yield Endpoint("POST", f"{_OLD}/link-to-run", self._link_run, write, Resource.RUN, "run_id")
        yield Endpoint("POST", f"{_OLD}/link-prompts", self._link_prompts, write)
        for here, named in ((_HERE, "trace_id"), (_OLD, "request_id")):
            yield Endpoint("PATCH", f"{here}/{{{named}}}/tags", self._set_tag, write)
            yield Endpoint("DELETE", f"{here}/{{{named}}}/tags", self._delete_tag, write)
            yield Endpoint("POST", f"{here}/delete-traces", self._delete, write, Resource.EXPERIMENT, "experiment_id")
        for version in ("2.0", "3.0"):
            yield Endpoint("GET", f"{version}/mlflow/get-trace-artifact", self._get_artifact, read)

    async def _start(self, caller: Caller, arguments: Arguments) -> Answer:
        info = _message(_message(arguments, "trace"), "trace_info")
        return {"trace": {"trace_info": trace_infos.shown(await self._traces.put(caller, trace_infos.read(info)))}}

    async def _get_info(self, caller: Caller, arguments: Arguments) -> Answer:
        return {"trace": {"trace_info": trace_infos.shown(await self._traces.get(caller, trace_id(arguments)))}}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        wanted = arguments.required("trace_id")
        trace, found = await self._whole(caller, wanted, partial=arguments.flag("allow_partial"))
        if not _here(trace):
            raise MlflowError("INVALID_STATE", "Trace data not stored in tracking store")
        return {"trace": _shown(trace, found)}

    async def _whole(self, caller: Caller, wanted: str, *, partial: bool) -> tuple[Trace, list[Span]]:
        for pause in (*_PAUSES, None):
            both = await self._traces.get_whole(caller, [wanted])
            if not both:
                raise NotFound("trace", wanted)
            trace, found = both[0]
            if partial or spans.whole(trace, found) or not _here(trace):
                return trace, found
            if pause is not None:
                await asyncio.sleep(pause)
        raise missing(f"Trace with ID {wanted} is not fully exported yet, please try again later.")

    async def _batch_get(self, caller: Caller, arguments: Arguments) -> Answer:
        found = await self._traces.get_whole(caller, _ids(arguments), _within(arguments))
        shown = [_shown(trace, each) for trace, each in found if _here(trace) and spans.whole(trace, each)]
        return {"traces": shown} if shown else {}

    async def _batch_get_infos(self, caller: Caller, arguments: Arguments) -> Answer:
        found = await self._traces.get_many(caller, _ids(arguments), _within(arguments))
        return {"trace_infos": [trace_infos.shown(trace) for trace in found]} if found else {}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        if "locations" not in arguments:
            raise arguments.lacking("locations")
        places = [each for each in arguments.messages("locations") if "mlflow_experiment" in each]
        within = [trace_infos.experiment_of(place) for place in places]
        found, token = await searched(self._traces, caller, arguments, within)
        answer: dict[str, Any] = {"traces": [trace_infos.shown(trace) for trace in found]} if found else {}
        return {**answer, "next_page_token": token} if token else answer

    async def _set_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        key = arguments.required("key")
        if key in _SYSTEM:
            raise invalid(f"Tag '{key}' is immutable and cannot be set on a trace.")
        await self._traces.set_tag(caller, trace_id(arguments), key, arguments.text("value"))
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        key = arguments.required("key")
        if key in _SYSTEM and key != _DELETABLE:
            raise invalid(f"Tag '{key}' is immutable and cannot be deleted on a trace.")
        await self._traces.delete_tag(caller, trace_id(arguments), key)
        return {}

    async def _link_run(self, caller: Caller, arguments: Arguments) -> Answer:
        wanted, run_id = _ids(arguments), arguments.required("run_id")
        await self._traces.link_run(caller, wanted, run_id)
        return {}

    async def _link_prompts(self, caller: Caller, arguments: Arguments) -> Answer:
        wanted = arguments.required("trace_id")
        if "prompt_versions" not in arguments:
            raise arguments.lacking("prompt_versions")
        versions = arguments.messages("prompt_versions")
        prompts = [f"{each.required('name')}/{each.integer('version')}" for each in versions]
        await self._traces.link_prompts(caller, wanted, prompts)
        return {}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id = ids.experiment_id(arguments)
        wanted = arguments.texts("request_ids")
        timed, limited = "max_timestamp_millis" in arguments, "max_traces" in arguments
        if not timed and not wanted:
            raise invalid("Either `max_timestamp_millis` or `trace_ids` must be specified.")
        if timed and wanted:
            raise invalid("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
        if wanted and limited:
            raise invalid("`max_traces` can't be specified if `trace_ids` is specified.")
        limit = arguments.integer("max_traces") if limited else None
        if limit is not None and limit <= 0:
            raise invalid(f"`max_traces` must be a positive integer, received {limit}.")
        until_ms = arguments.integer("max_timestamp_millis") if timed else None
        deleted = await self._traces.delete(
            caller, experiment_id, until_ms=until_ms, trace_ids=wanted or None, limit=limit
        )
        return {"traces_deleted": deleted}

    async def _get_artifact(self, caller: Caller, arguments: Arguments) -> Answer:
        wanted = arguments.text("request_id")
        if not wanted:
            raise MlflowError("BAD_REQUEST", 'Request must include the "request_id" query parameter.')
        if path := arguments.text("path"):
            return await self._file(caller, await self._traces.get(caller, wanted), f"attachments/{path}")
        trace, found = await self._whole(caller, wanted, partial=True)
        if _here(trace):
            return _attached(spans.file(found), "traces.json")
        return await self._file(caller, trace, "traces.json")

    async def _file(self, caller: Caller, trace: Trace, path: str) -> Reply:
        """A file that its client uploaded. Raises MlflowError."""
        body = bytearray()
        try:
            async for piece in self._artifacts.download(caller, parse_owner(trace.trace_id), path):
                if not isinstance(piece, Artifact):
                    body += piece
                elif piece.size > FILE_LIMIT:
                    raise invalid(f"The file has {piece.size} bytes; the limit is {FILE_LIMIT}. Download the artifact.")
        except (InvalidArgument, NotFound):
            raise missing(f"Trace data not found for path={path[:200]}") from None
        return _attached(bytes(body), path)


async def searched(
    traces: Traces, caller: Caller, arguments: Arguments, within: Sequence[ExperimentId]
) -> tuple[list[Trace], str]:
    """One page of a search, by the arguments of one, and the token of the next."""
    limit = pages.size(arguments, _DEFAULT, _MOST)
    query = search.parse_traces(arguments.text("filter"), arguments.texts("order_by"))
    return await traces.search(caller, query, within, limit, arguments.text("page_token"))


def trace_id(arguments: Arguments) -> str:
    """The trace that a request is about, as its path says: of MLflow 3 or of 2."""
    return arguments.text("trace_id") or arguments.required("request_id")


def _message(arguments: Arguments, name: str) -> Arguments:
    found = arguments.message(name)
    if found is None:
        raise arguments.lacking(name)
    return found


def _ids(arguments: Arguments) -> list[str]:
    found = arguments.texts("trace_ids")
    if not found:
        raise arguments.lacking("trace_ids")
    return found


def _within(arguments: Arguments) -> list[ExperimentId] | None:
    return ids.experiment_ids(arguments) if "experiment_ids" in arguments else None


def _here(trace: Trace) -> bool:
    """Whether the server has the trace's spans; else its client has uploaded them as a file."""
    return trace.tags.get(trace_infos.SPANS) == trace_infos.HERE


def _shown(trace: Trace, found: Sequence[Span]) -> dict[str, Any]:
    return {"trace_info": trace_infos.shown(trace), "spans": [spans.shown(span) for span in found]}


def _attached(body: bytes, path: str) -> Reply:
    name = path.rpartition("/")[2]
    headers = {"content-disposition": f'attachment; filename="{name}"'} if name.isascii() and '"' not in name else {}
    return Reply(200, body, headers, "application/octet-stream")
