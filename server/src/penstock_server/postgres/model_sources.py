"""Which versions of registered models stand on a run, its artifacts or an experiment."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.artifacts import parents
from penstock_server.model.errors import FailedPrecondition, InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.owners import Owner, OwnerKind, OwnerRef
from penstock_server.model.registry import ModelId, VersionStatus
from penstock_server.model.runs import RunId, parse_run_id
from penstock_server.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class Standing:
    """A version that stands on something of a run or a logged model. `name` is the model's."""

    id: int
    model_id: ModelId
    name: str
    version: int
    run_id: RunId | None


_SELECT = """
SELECT v.id, v.model_id, m.name, v.version, v.run_id FROM model_versions v JOIN registered_models m ON m.id = v.model_id
 WHERE v.workspace_id = $1 AND """
_ORDER = " ORDER BY m.name, v.version"
_ON_RUN = f"{_SELECT} v.run_id = $2 {_ORDER}"
# Whose bytes are an owner's.
_OF = {
    OwnerKind.RUN: "v.run_id = $2 AND starts_with(v.source, 'runs:/')",
    OwnerKind.LOGGED_MODEL: "v.logged_model_id = $2 AND starts_with(v.source, 'models:/m-')",
}
# The same path, one above it, or one below it; no path is all that there is.
_ON_ARTIFACT = {
    kind: f"""{_SELECT} {of}
   AND (v.path IN ('', $3) OR starts_with(v.path, $3 || '/') OR starts_with($3, v.path || '/')) {_ORDER}"""
    for kind, of in _OF.items()
}
# Of the runs that this very transaction has marked: who wrote a row is in its xmin. Those that were deleted before were
# deleted by force.
_ON_EXPERIMENT = f"""{_SELECT} v.run_id IN
       (SELECT r.id FROM model_versions s JOIN runs r ON r.id = s.run_id
         WHERE s.workspace_id = $1 AND r.workspace_id = $1 AND r.experiment_id = $2
           AND r.xmin = pg_current_xact_id()::xid) {_ORDER}"""  # noqa: S608  # only constants are put together
_ON_LOGGED_MODEL = f"{_SELECT} v.logged_model_id = $2 {_ORDER}"
_STILL = f"{_SELECT} v.id = ANY($2) {_ORDER}"


async def on_run(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> list[Standing]:
    """Those that come from a run."""
    return [Standing(*row) for row in await conn.fetch(_ON_RUN, workspace_id, run_id)]


async def on_files(conn: Connection, workspace_id: WorkspaceId, owner: Owner) -> list[Standing]:
    """Those whose bytes may be among an owner's files."""
    match owner.kind:
        case OwnerKind.RUN:
            return await on_run(conn, workspace_id, RunId(owner.id))
        case OwnerKind.LOGGED_MODEL:
            return await on_logged_model(conn, workspace_id, owner.id)
        case OwnerKind.TRACE:
            return []


async def on_artifact(conn: Connection, workspace_id: WorkspaceId, owner: Owner, path: str) -> list[Standing]:
    """Those whose bytes are at a path of an owner, below it, or in a directory that it is in."""
    if owner.kind not in _OF:
        return []
    return [Standing(*row) for row in await conn.fetch(_ON_ARTIFACT[owner.kind], workspace_id, owner.id, path)]


async def on_logged_model(conn: Connection, workspace_id: WorkspaceId, logged_model_id: uuid.UUID) -> list[Standing]:
    """Those that come from a logged model."""
    return [Standing(*row) for row in await conn.fetch(_ON_LOGGED_MODEL, workspace_id, logged_model_id)]


_HOLD_LOGGED_MODEL = """
SELECT source_run_id FROM logged_models WHERE workspace_id = $1 AND id = $2 AND lifecycle = 1 FOR SHARE
"""


async def hold_logged_model(conn: Connection, workspace_id: WorkspaceId, logged_model_id: uuid.UUID) -> RunId | None:
    """Keeps an active logged model there until the transaction ends: the run that it comes from. Raises NotFound.

    None where that is no run of ours.
    """
    row = await conn.fetchrow(_HOLD_LOGGED_MODEL, workspace_id, logged_model_id)
    if row is None:
        raise NotFound("logged model", format_model_id(logged_model_id))
    try:
        return parse_run_id(row["source_run_id"])
    except InvalidArgument:
        return None


_OF_RUN = """
SELECT e.id, e.artifact_location FROM runs r JOIN experiments e ON e.id = r.experiment_id
 WHERE r.workspace_id = $1 AND r.id = $2
"""
_OF_LOGGED_MODEL = """
SELECT e.id, e.artifact_location FROM logged_models l JOIN experiments e ON e.id = l.experiment_id
 WHERE l.workspace_id = $1 AND l.id = $2
"""


async def home(
    conn: Connection, workspace_id: WorkspaceId, run_id: RunId | None, logged_model_id: uuid.UUID | None
) -> tuple[ExperimentId, str] | None:
    """The experiment of a logged model, if one is told, or of a run, and its artifact_location; None when unknown."""
    if logged_model_id is not None:
        row = await conn.fetchrow(_OF_LOGGED_MODEL, workspace_id, logged_model_id)
    else:
        row = await conn.fetchrow(_OF_RUN, workspace_id, run_id)
    return None if row is None else (ExperimentId(row["id"]), row["artifact_location"])


# A version may be of the path, of a directory that it is in, or of all that the owner has.
_STANDING = {
    kind: f"""
SELECT DISTINCT ON (w.path) w.path, m.name, v.version
  FROM unnest($3::text[], $4::text[]) AS w (path, at)
  JOIN model_versions v ON v.path = w.at JOIN registered_models m ON m.id = v.model_id
 WHERE v.workspace_id = $1 AND {of} AND v.status = {VersionStatus.READY}
 ORDER BY w.path, m.name, v.version
"""  # noqa: S608  # only constants are put together
    for kind, of in _OF.items()
}


async def refusals(conn: Connection, owner: OwnerRef, paths: Collection[str]) -> dict[str, FailedPrecondition]:
    """Why what is at some of these paths is not to be replaced: a version that is ready stands on it."""
    if not paths or owner.owner.kind not in _OF:
        return {}
    pairs = [(path, at) for path in paths for at in (path, *parents(path), "")]
    standing = _STANDING[owner.owner.kind]
    rows = await conn.fetch(
        standing, owner.workspace_id, owner.id, [path for path, _ in pairs], [at for _, at in pairs]
    )
    return {
        path: FailedPrecondition(
            f"{name} version {version} stands on {path!r}, so it is not replaced by other content; "
            "log it under another path, or delete it by force first"
        )
        for path, name, version in rows
    }


async def on_experiment(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> list[Standing]:
    """Those that come from a run of an experiment which the transaction has marked deleted."""
    return [Standing(*row) for row in await conn.fetch(_ON_EXPERIMENT, workspace_id, experiment_id)]


_MODELS_OF_EXPERIMENT = """
SELECT DISTINCT v.model_id FROM model_versions v JOIN runs r ON r.id = v.run_id
 WHERE v.workspace_id = $1 AND r.workspace_id = $1 AND r.experiment_id = $2
"""


async def models_of_experiment(
    conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId
) -> list[ModelId]:
    """Those with versions that come from a run of it, deleted or not."""
    return [ModelId(row[0]) for row in await conn.fetch(_MODELS_OF_EXPERIMENT, workspace_id, experiment_id)]


async def still(conn: Connection, workspace_id: WorkspaceId, ids: Sequence[int]) -> list[Standing]:
    """Those of these versions that are there."""
    return [Standing(*row) for row in await conn.fetch(_STILL, workspace_id, ids)]
