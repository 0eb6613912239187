"""The use cases of assessments: what people and judges say of traces."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from penstock_server.model.access import Caller
from penstock_server.model.errors import NotFound
from penstock_server.model.limits import check_text, check_time_ms
from penstock_server.model.traces import (
    ID_LIMIT,
    KEY_LIMIT,
    RATIONALE_LIMIT,
    Assessment,
    check_pairs,
    check_trace_id,
)
from penstock_server.postgres import assessments
from penstock_server.postgres.database import Database


class Assessments:
    """Makes, finds and changes assessments. Everything may raise InvalidArgument, NotFound and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, caller: Caller, trace_id: str, assessment: Assessment) -> None:
        """Says something of a trace; what it overrides is valid no more. Raises AlreadyExists."""
        assessment = check(assessment)
        check_trace_id(trace_id)
        async with self._db.transaction() as conn:
            trace = await assessments.locate(conn, caller.workspace_id, trace_id)
            await assessments.add(conn, trace, assessment)
            await assessments.check_number(conn, caller.workspace_id, trace_id)

    async def get(self, caller: Caller, trace_id: str, assessment_id: str) -> Assessment:
        """One of a trace."""
        check_trace_id(trace_id)
        check_text("assessment_id", assessment_id, ID_LIMIT, empty=False)
        async with self._db.connection() as conn:
            return await assessments.find(conn, caller.workspace_id, trace_id, assessment_id)

    async def update(
        self, caller: Caller, trace_id: str, assessment_id: str, change: Callable[[Assessment], Assessment]
    ) -> Assessment:
        """Makes another of one by `change`, and returns that."""
        check_trace_id(trace_id)
        check_text("assessment_id", assessment_id, ID_LIMIT, empty=False)
        async with self._db.transaction() as conn:
            trace = await assessments.locate(conn, caller.workspace_id, trace_id)
            found = await assessments.lock(conn, trace, assessment_id)
            changed = check(change(found))
            if changed != found:
                await assessments.replace(conn, trace, changed)
        return changed

    async def delete(self, caller: Caller, trace_id: str, assessment_id: str) -> None:
        """Takes one back; what it overrode is valid again. One that is not there is fine, and so is its trace."""
        check_trace_id(trace_id)
        check_text("assessment_id", assessment_id, ID_LIMIT, empty=False)
        async with self._db.transaction() as conn:
            with suppress(NotFound):
                trace = await assessments.locate(conn, caller.workspace_id, trace_id)
                await assessments.drop(conn, trace, assessment_id)


def check(assessment: Assessment) -> Assessment:
    """What is said, as it can be kept. Raises InvalidArgument."""
    check_text("assessment_id", assessment.assessment_id, ID_LIMIT, empty=False)
    check_text("assessment_name", assessment.name, KEY_LIMIT, empty=False)
    check_text("source_type", assessment.source_type, ID_LIMIT)
    check_text("source_id", assessment.source_id, ID_LIMIT)
    check_text("rationale", assessment.rationale or "", RATIONALE_LIMIT)
    check_text("span_id", assessment.span_id or "", ID_LIMIT)
    check_text("overrides", assessment.overrides or "", ID_LIMIT)
    check_time_ms("create_time", assessment.created_ms)
    check_time_ms("last_update_time", assessment.updated_ms)
    return replace(assessment, metadata=check_pairs("metadata", assessment.metadata))
