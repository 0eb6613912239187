"""What is said of traces, as MLflow's clients know it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from penstock_server.core.assessments import Assessments
from penstock_server.mlflow import trace_infos
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.model.access import Caller, Permission
from penstock_server.model.traces import Assessment, AssessmentKind

_HERE = "3.0/mlflow/traces/{trace_id}/assessments"
_ONE = f"{_HERE}/{{assessment_id}}"
_HUMP = re.compile("[A-Z]")


class AssessmentEndpoints:
    """The endpoints of assessments."""

    def __init__(self, assessments: Assessments) -> None:
        self._assessments = assessments

    def __iter__(self) -> Iterator[Endpoint]:
        read, write = Permission.READ, Permission.WRITE
        yield Endpoint("POST", _HERE, self._create, write)
        yield Endpoint("GET", _ONE, self._get, read)
        yield Endpoint("PATCH", _ONE, self._update, write)
        yield Endpoint("DELETE", _ONE, self._delete, write)

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        made = trace_infos.read_assessment(_said(arguments))
        await self._assessments.create(caller, arguments.required("trace_id"), made)
        return _answer(arguments, made)

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        return _answer(arguments, await self._assessments.get(caller, *_named(arguments)))

    async def _update(self, caller: Caller, arguments: Arguments) -> Answer:
        said = _said(arguments)
        mask = _HUMP.sub(lambda found: "_" + found[0].lower(), arguments.required("update_mask")).split(",")
        now_ms = time.time_ns() // 1_000_000

        def change(found: Assessment) -> Assessment:
            changed = replace(found, **_changes(said, mask, found), updated_ms=now_ms)
            return replace(changed, metadata={**found.metadata, **changed.metadata})

        return _answer(arguments, await self._assessments.update(caller, *_named(arguments), change))

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._assessments.delete(caller, *_named(arguments))
        return {}


def _changes(said: Arguments, mask: list[str], found: Assessment) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name in mask:
        match name:
            case "assessment_name":
                changes["name"] = said.text(name) or found.name
            case "rationale":
                changes["rationale"] = said.optional(name)
            case "metadata":
                changes["metadata"] = trace_infos.texts(said, name)
            case "feedback" | "expectation":
                if found.kind is not AssessmentKind(name):
                    raise invalid(f"Cannot update {name} value on {found.kind.value} of the same id.")
                _, changes["value"], changes["error"] = trace_infos.read_value(said)
    return changes


def _said(arguments: Arguments) -> Arguments:
    said = arguments.message("assessment")
    if said is None:
        raise arguments.lacking("assessment")
    return said


def _named(arguments: Arguments) -> tuple[str, str]:
    return arguments.required("trace_id"), arguments.required("assessment_id")


def _answer(arguments: Arguments, said: Assessment) -> Answer:
    return {"assessment": trace_infos.shown_assessment(arguments.required("trace_id"), said)}
