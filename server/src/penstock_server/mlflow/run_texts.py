"""A run's params and tags: as they come from MLflow's clients, and as they go to them.

What MLflow has as tags only, and we have as columns, goes both ways: the name, which is never kept as a tag; who, from
what and of which commit, which are kept as both. A run that came by another door shows its columns as tags.
"""

from __future__ import annotations

from collections.abc import Mapping

from penstock_server.mlflow.arguments import Arguments
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.runs import (
    COMMIT_LIMIT,
    PARAM_VALUE_LIMIT,
    SOURCE_LIMIT,
    TAG_VALUE_LIMIT,
    USER_LIMIT,
    NewRun,
    Run,
    RunId,
    format_run_id,
    parse_run_id,
)

RUN_NAME = "mlflow.runName"
PARENT = "mlflow.parentRunId"
USER = "mlflow.user"
SOURCE = "mlflow.source.name"
COMMIT = "mlflow.source.git.commit"


def param(arguments: Arguments) -> tuple[str, str]:
    """A param's key and value, of which the end is cut off where it is too long, as MLflow does."""
    return arguments.required("key"), arguments.text("value")[:PARAM_VALUE_LIMIT]


def tag(arguments: Arguments) -> tuple[str, str]:
    """A tag's key and value, of which the end is cut off where it is too long, as MLflow does."""
    return arguments.required("key"), arguments.text("value")[:TAG_VALUE_LIMIT]


def tags(arguments: Arguments) -> tuple[dict[str, str], str]:
    """The field `tags`, of two with one key the last; and the run's name that is among them, "" when none is."""
    found = dict(map(tag, arguments.messages("tags")))
    return found, found.pop(RUN_NAME, "")


def new_run(user: str, name: str, given: dict[str, str], start_ms: int) -> NewRun:
    """A run to be made with these tags."""
    return NewRun(
        name=name,
        user=(user or given.get(USER, ""))[:USER_LIMIT],
        source_name=given.get(SOURCE, "")[:SOURCE_LIMIT],
        git_commit=given.get(COMMIT, "")[:COMMIT_LIMIT],
        parent_run_id=parent(given),
        start_ms=start_ms,
        tags=given,
    )


def parent(given: Mapping[str, str]) -> RunId | None:
    """The run that the tags name as its parent; any text may stand there."""
    try:
        return parse_run_id(given[PARENT]) if PARENT in given else None
    except InvalidArgument:
        return None


def shown_tags(run: Run) -> dict[str, str]:
    """The run's tags with those that are made of its columns."""
    made = {RUN_NAME: run.name}
    if run.user:
        made[USER] = run.user
    if run.source_name:
        made[SOURCE] = run.source_name
    if run.git_commit:
        made[COMMIT] = run.git_commit
    if run.parent_run_id is not None:
        made[PARENT] = format_run_id(run.parent_run_id)
    return {**made, **run.tags, RUN_NAME: run.name}
