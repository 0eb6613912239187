"""Traces, as clients of MLflow 2 know them: begun and ended by a call each, with their spans in a file."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from penstock_server.core.traces import Traces
from penstock_server.mlflow import ids, trace_infos
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.traces import searched, trace_id
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.traces import Trace, TraceState

_HERE = "2.0/mlflow/traces"
_UNSPECIFIED = "TRACE_STATUS_UNSPECIFIED"


class OldTraceEndpoints:
    """The endpoints of traces of MLflow 2."""

    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def __iter__(self) -> Iterator[Endpoint]:
        read, write = Permission.READ, Permission.WRITE
        yield Endpoint("POST", _HERE, self._start, write, Resource.EXPERIMENT, "experiment_id")
        yield Endpoint("PATCH", f"{_HERE}/{{request_id}}", self._end, write)
        yield Endpoint("GET", f"{_HERE}/{{request_id}}/info", self._get, read)
        yield Endpoint("GET", _HERE, self._search, read, Resource.EXPERIMENT, "experiment_ids")

    async def _start(self, caller: Caller, arguments: Arguments) -> Answer:
        trace = Trace(
            trace_id=f"tr-{uuid.uuid4().hex}",
            experiment_id=ids.experiment_id(arguments),
            request_ms=arguments.integer("timestamp_ms", time.time_ns() // 1_000_000),
            execution_ms=None,
            state=TraceState.IN_PROGRESS,
            tags=arguments.pairs("tags"),
            metadata=arguments.pairs("request_metadata"),
            told=False,  # all of it, yet
        )
        return {"trace_info": _shown(await self._traces.put(caller, trace))}

    async def _end(self, caller: Caller, arguments: Arguments) -> Answer:
        trace = await self._traces.end(
            caller,
            trace_id(arguments),
            arguments.integer("timestamp_ms"),
            trace_infos.state(arguments, "status", _UNSPECIFIED),
            arguments.pairs("tags"),
            arguments.pairs("request_metadata"),
        )
        return {"trace_info": _shown(trace)}

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        return {"trace_info": _shown(await self._traces.get(caller, trace_id(arguments)))}

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        if "experiment_ids" not in arguments:
            raise arguments.lacking("experiment_ids")
        found, token = await searched(self._traces, caller, arguments, ids.experiment_ids(arguments))
        answer: dict[str, Any] = {"traces": [_shown(trace) for trace in found]} if found else {}
        return {**answer, "next_page_token": token} if token else answer


def _shown(trace: Trace) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "request_id": trace.trace_id,
        "experiment_id": str(trace.experiment_id),
        "timestamp_ms": trace.request_ms,
        "execution_time_ms": trace.execution_ms or 0,
        "status": _UNSPECIFIED if trace.state is TraceState.STATE_UNSPECIFIED else trace.state.name,
    }
    for name, texts in (
        ("request_metadata", trace_infos.shown_metadata(trace)),
        ("tags", trace_infos.shown_tags(trace)),
    ):
        if texts:
            answer[name] = _pairs(texts)
    return answer


def _pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in texts.items()]
