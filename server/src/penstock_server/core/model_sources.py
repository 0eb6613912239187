"""What versions of registered models stand on: it is there when they are made, and is deleted only by force."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.artifacts import check_directory
from penstock_server.model.errors import FailedPrecondition, InvalidArgument, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.owners import Owner, OwnerKind, of_run
from penstock_server.model.registry import (
    EventKind,
    Happening,
    ModelVersion,
    NewVersion,
    Ref,
    VersionStatus,
    check_source,
    is_of_run,
    logged_model_source,
    parse_logged_model_source,
    parse_ref,
    parse_run_source,
    run_source,
)
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.postgres import artifacts, model_sources, model_versions, owners, registry, registry_events, runs
from penstock_server.postgres.database import Connection
from penstock_server.postgres.model_sources import Standing

_OF_MODELS = "models:/"


def read(new: NewVersion) -> NewVersion:
    """Of a run or a logged model by its id and path, or by its source, both told. Raises InvalidArgument."""
    if not new.source:
        path = check_directory(new.path, "path")
        if new.logged_model_id is not None:
            return replace(new, path=path, source=logged_model_source(new.logged_model_id))
        if new.run_id is None:
            raise InvalidArgument("source", "give this, or a run_id and a path")
        return replace(new, path=path, source=run_source(new.run_id, path))
    if new.path:
        raise InvalidArgument("path", "not together with source; give one of them")
    check_source(new.source)
    new = replace(new, given_source=new.given_source or new.source)
    if is_of_run(new.source):
        run_id, path = parse_run_source(new.source)
        return replace(_from(new, run_id, new.logged_model_id), path=path, source=run_source(run_id, path))
    if logged_model_id := parse_logged_model_source(new.source):
        return _from(new, new.run_id, logged_model_id)
    return new


def _from(new: NewVersion, run_id: RunId | None, logged_model_id: uuid.UUID | None) -> NewVersion:
    if new.run_id not in (None, run_id):
        raise InvalidArgument("run_id", "is not the run of the source; give one of them")
    if new.logged_model_id not in (None, logged_model_id):
        raise InvalidArgument("model_id", "is not the logged model of the source; give one of them")
    return replace(new, run_id=run_id, logged_model_id=logged_model_id)


async def hold(conn: Connection, caller: Caller, new: NewVersion) -> NewVersion:
    """What a new version is to stand on, kept there until the transaction ends.

    Raises NotFound of the run, the artifact, the logged model or the version that the source refers to; NotActive of
    the run.
    """
    if new.source.startswith(_OF_MODELS) and parse_logged_model_source(new.source) is None:
        original = await resolve(conn, caller.workspace_id, parse_ref(new.source, "source"))
        new = replace(
            _from(new, original.run_id, original.logged_model_id),
            path=original.path,
            source=original.source,
            given_source=f"{_OF_MODELS}{original.name}/{original.version}",
        )
    if new.run_id is not None and not new.as_told:
        if is_of_run(new.source) and new.status is not VersionStatus.PENDING:
            await _hold_artifact(conn, caller, new.run_id, new.path)
        await runs.hold_active(conn, caller.workspace_id, new.run_id)
    if new.logged_model_id is not None:
        source_run = await model_sources.hold_logged_model(conn, caller.workspace_id, new.logged_model_id)
        new = replace(new, run_id=new.run_id or source_run)
    return new


async def hold_bytes(conn: Connection, caller: Caller, version: ModelVersion) -> None:
    """Keeps the artifact of a version there until the transaction ends. Raises NotFound, NotActive of its run."""
    if version.run_id is not None and is_of_run(version.source):
        await _hold_artifact(conn, caller, version.run_id, version.path)


async def _hold_artifact(conn: Connection, caller: Caller, run_id: RunId, path: str) -> None:
    run = await owners.hold_files(conn, caller.workspace_id, of_run(run_id))
    if path:
        there = await artifacts.find(conn, run, path) is not None or await artifacts.is_directory(conn, run, path)
    else:
        there = bool(await artifacts.files(conn, run, "", None, 1))
    if not there:
        raise (
            NotFound("artifact", path) if path else FailedPrecondition(f"run {format_run_id(run_id)} has no artifacts")
        )


async def resolve(conn: Connection, workspace_id: WorkspaceId, ref: Ref) -> ModelVersion:
    """The version that is meant. Raises NotFound, of the model where there is none."""
    found = await model_versions.resolve(conn, workspace_id, ref)
    if found is None:
        await registry.locate(conn, workspace_id, ref.name)
        if ref.alias is not None:
            raise NotFound("alias", f"{ref.name}@{ref.alias}")
        if ref.version:
            raise NotFound("model version", f"{ref.name}/{ref.version}")
        which, there = (ref.stage.label, f"in {ref.stage.label}") if ref.stage else ("latest", "there")
        raise NotFound("model version", f"{ref.name}/{which}", f"no version of it is {there}")
    return found


async def lock_models_of_run(conn: Connection, caller: Caller, run_id: RunId) -> None:
    """Locks the models that stand on it, before anything of the run: see the order of locks in postgres/registry.py."""
    found = await model_sources.on_run(conn, caller.workspace_id, run_id)
    await registry.lock_all(conn, caller.workspace_id, sorted({each.model_id for each in found}))


async def lock_models_on_files(conn: Connection, workspace_id: WorkspaceId, owner: Owner) -> None:
    """As `lock_models_of_run`, before an owner's files are held."""
    found = await model_sources.on_files(conn, workspace_id, owner)
    await registry.lock_all(conn, workspace_id, sorted({each.model_id for each in found}))


async def lock_models_of_experiment(conn: Connection, caller: Caller, experiment_id: ExperimentId) -> None:
    """As `lock_models_of_run`, for all of its runs."""
    found = await model_sources.models_of_experiment(conn, caller.workspace_id, experiment_id)
    await registry.lock_all(conn, caller.workspace_id, found)


async def lock_models_of_logged_model(conn: Connection, caller: Caller, logged_model_id: uuid.UUID) -> None:
    """As `lock_models_of_run`, for a logged model."""
    found = await model_sources.on_logged_model(conn, caller.workspace_id, logged_model_id)
    await registry.lock_all(conn, caller.workspace_id, sorted({each.model_id for each in found}))


async def leave_run(conn: Connection, caller: Caller, run_id: RunId, *, force: bool) -> None:
    """Call it once a run is marked deleted. Raises FailedPrecondition when versions stand on it, unless `force`."""
    found = await model_sources.on_run(conn, caller.workspace_id, run_id)
    told = {"run_id": format_run_id(run_id)}
    await _leave(conn, caller, found, "run", told, f"run {format_run_id(run_id)}", force=force)


async def leave_artifact(conn: Connection, caller: Caller, owner: Owner, path: str, *, force: bool) -> None:
    """Call it with the owner's files held. Raises FailedPrecondition when versions stand on it, unless `force`.

    On what is at the path, in it, or on a directory that it is in.
    """
    found = await model_sources.on_artifact(conn, caller.workspace_id, owner, path)
    await _leave(conn, caller, found, "artifact", {**_whose(owner), "path": path}, f"artifact {path!r}", force=force)


async def replace_artifact(conn: Connection, caller: Caller, owner: Owner, path: str, sha256: bytes) -> None:
    """Call it with the owner's files held, once other bytes than before, of that digest, are at the path by force."""
    found = await model_sources.on_artifact(conn, caller.workspace_id, owner, path)
    told, after = {**_whose(owner), "path": path}, {"sha256": sha256.hex()}
    await _leave(conn, caller, found, "artifact", told, f"artifact {path!r}", force=True, after=after)


async def leave_experiment(conn: Connection, caller: Caller, experiment_id: ExperimentId, *, force: bool) -> None:
    """Call it once its runs are marked deleted.

    Raises FailedPrecondition when versions stand on one of them, unless `force`. Those of runs that were deleted before
    do not count: that was by force.
    """
    found = await model_sources.on_experiment(conn, caller.workspace_id, experiment_id)
    told = {"experiment_id": str(experiment_id)}
    await _leave(conn, caller, found, "experiment", told, f"experiment {experiment_id}", force=force)


async def leave_logged_model(conn: Connection, caller: Caller, logged_model_id: uuid.UUID, *, force: bool) -> None:
    """Call it once a logged model is marked deleted.

    Raises FailedPrecondition when versions stand on it, unless `force`.
    """
    found = await model_sources.on_logged_model(conn, caller.workspace_id, logged_model_id)
    name = format_model_id(logged_model_id)
    told = {"logged_model_id": name}
    await _leave(conn, caller, found, "logged_model", told, f"logged model {name}", force=force)


_NAMED = 3


async def _leave(
    conn: Connection,
    caller: Caller,
    found: list[Standing],
    kind: str,
    told: Mapping[str, str],
    what: str,
    *,
    force: bool,
    after: Mapping[str, str] = MappingProxyType({}),
) -> None:
    if not found:
        return
    if not force:
        named = ", ".join(f"{each.name} version {each.version}" for each in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        plural = len(found) > 1
        raise FailedPrecondition(
            f"{named}{more} {'stand' if plural else 'stands'} on {what}; "
            f"delete {'those versions' if plural else 'that version'} first, or force it"
        )
    models = await registry.lock_all(conn, caller.workspace_id, sorted({each.model_id for each in found}))
    still = await model_sources.still(conn, caller.workspace_id, [each.id for each in found])
    for model in models:
        happened = [
            Happening(EventKind.SOURCE_DELETED, each.version, kind, {**told, **_run(each)}, after)
            for each in still
            if each.model_id == model.model_id
        ]
        await registry_events.add(conn, caller, model.model_id, model.name, happened)


def _run(standing: Standing) -> dict[str, str]:
    return {"run_id": format_run_id(standing.run_id)} if standing.run_id else {}


def _whose(owner: Owner) -> dict[str, str]:
    return {"logged_model_id": str(owner)} if owner.kind is OwnerKind.LOGGED_MODEL else {}
