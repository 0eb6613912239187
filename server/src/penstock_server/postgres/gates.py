"""What gates look at: the values of a version, and of those that its gates refer to, in the caller's transaction."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import NotFound
from penstock_server.model.gates import Facts
from penstock_server.model.promotions import where_to
from penstock_server.model.registry import EventKind, ModelRef, ModelVersion, Ref, Stage
from penstock_server.model.runs import Run, RunId
from penstock_server.model.search_tree import Entity, Field, Type, Value
from penstock_server.postgres import model_versions, registry_events, runs
from penstock_server.postgres.database import Connection


@dataclass(frozen=True, slots=True)
class _Holder:
    """A version whose values are looked at. `version` is None when it is deleted, which leaves its run."""

    number: int
    label: str
    run_id: RunId | None
    version: ModelVersion | None


async def facts(
    conn: Connection, model: ModelRef, version: ModelVersion, wanted: Mapping[str, Collection[Field]]
) -> tuple[Facts, dict[str, Facts | None]]:
    """Of a version of a locked model, and by reference: None where no version ever was it.

    `wanted` is what model.gates.needed says. What an alias or a stage has left is as the last that it had.
    """
    subject = _Holder(version.version, f"version {version.version}", version.run_id, version)
    held = {target: await _holder(conn, model, target) for target in wanted if target}
    run_ids = {holder.run_id for holder in (subject, *held.values()) if holder is not None and holder.run_id}
    fields = {field for each in wanted.values() for field in each}
    values = await run_values(conn, model.workspace_id, run_ids, fields)
    return _facts(subject, values, wanted[""]), {
        target: None if holder is None else _facts(holder, values, wanted[target]) for target, holder in held.items()
    }


async def _holder(conn: Connection, model: ModelRef, target: str) -> _Holder | None:
    """The version that an alias or a stage means now, or else meant last."""
    to = where_to(target)
    stage, name = (to, to.label) if isinstance(to, Stage) else (None, to)
    ref = Ref(model.name, stage=stage) if stage else Ref(model.name, alias=name)
    now = await model_versions.resolve(conn, model.workspace_id, ref)
    if now is not None:
        return _Holder(now.version, f"version {now.version} ({name})", now.run_id, now)
    if stage:
        number: int | None = await conn.fetchval(_LAST_IN_STAGE, model.model_id, name)
    else:
        last = await registry_events.last_move(conn, model.model_id, name)
        number = None if last is None else last.what.version
    if number is None:
        return None
    label = f"version {number} (once {name})"
    try:
        once = await model_versions.load_one(conn, model, number)
    except NotFound:
        run_id: str = await conn.fetchval(_RUN_OF_DELETED, model.model_id, number)
        return _Holder(number, label, RunId(uuid.UUID(run_id)) if run_id else None, None)
    return _Holder(number, label, once.run_id, once)


# Whatever leaves a stage is an event of one of these kinds.
_LAST_IN_STAGE = f"""
SELECT version FROM registry_events
 WHERE model_id = $1 AND kind IN ({EventKind.STAGE_CHANGED}, {EventKind.VERSION_DELETED}) AND before->>'stage' = $2
 ORDER BY id DESC LIMIT 1
"""  # noqa: S608  # only constants are put together
_RUN_OF_DELETED = f"""
SELECT before->>'run_id' FROM registry_events
 WHERE model_id = $1 AND version = $2 AND kind = {EventKind.VERSION_DELETED}
"""  # noqa: S608  # only constants are put together


# One statement, so that all values are of one moment.
_VALUES = """
SELECT run_id, 'metrics', name, last_value, NULL FROM run_metrics
 WHERE run_id = ANY($1) AND workspace_id = $2 AND count > 0 AND name = ANY($3)
UNION ALL
SELECT run_id, 'params', key, NULL, value FROM run_params WHERE run_id = ANY($1) AND workspace_id = $2 AND key = ANY($4)
UNION ALL
SELECT run_id, 'tags', key, NULL, value FROM run_tags WHERE run_id = ANY($1) AND workspace_id = $2 AND key = ANY($5)
"""


async def run_values(
    conn: Connection, workspace_id: WorkspaceId, run_ids: Collection[RunId], fields: Collection[Field]
) -> dict[RunId, dict[Field, Value]]:
    """What these runs have of these fields; a run that does not exist is not there."""
    if not run_ids:
        return {}
    ids = sorted(run_ids)
    found: dict[RunId, dict[Field, Value]] = {
        run.id: _attributes(run) for run in await runs.load(conn, workspace_id, ids, info_only=True)
    }
    keys = [
        [each.key for each in fields if each.entity is entity] for entity in (Entity.METRIC, Entity.PARAM, Entity.TAG)
    ]
    if any(keys):
        for run_id, entity, key, number, text in await conn.fetch(_VALUES, ids, workspace_id, *keys):
            if run_id in found:
                kind = Type.TEXT if number is None else Type.NUMBER
                found[run_id][Field(Entity(entity), key, kind)] = text if number is None else number
    return found


def _attributes(run: Run) -> dict[Field, Value]:
    """The attributes that a run has, as searches know them."""
    values: list[tuple[str, Type, Value | None]] = [
        ("run_id", Type.RUN_ID, run.id.hex),
        ("run_name", Type.TEXT, run.name),
        ("status", Type.STATUS, run.status.name),
        ("start_time", Type.TIME, run.start_ms),
        ("end_time", Type.TIME, run.end_ms),
        ("user_id", Type.TEXT, run.user or None),
        ("experiment_id", Type.EXPERIMENT_ID, run.experiment_id),
        ("parent_run_id", Type.RUN_ID, run.parent_run_id.hex if run.parent_run_id else None),
        ("git_commit", Type.TEXT, run.git_commit or None),
        ("source_name", Type.TEXT, run.source_name or None),
        ("lifecycle", Type.LIFECYCLE, run.lifecycle.name),
    ]
    return {Field(Entity.ATTRIBUTE, name, kind): value for name, kind, value in values if value is not None}


def _facts(holder: _Holder, values: Mapping[RunId, Mapping[Field, Value]], wanted: Collection[Field]) -> Facts:
    of_run = values.get(holder.run_id) if holder.run_id else None
    unknown = ""
    if of_run is None:
        unknown = "comes from a run that was removed" if holder.run_id else "comes from no run"
    known = {field: value for field, value in (of_run or {}).items() if field in wanted}
    known[Field(Entity.ATTRIBUTE, "version", Type.VERSION)] = holder.number
    if holder.version is not None:
        known[Field(Entity.ATTRIBUTE, "stage", Type.STAGE)] = holder.version.stage.name
        known |= {Field(Entity.TAG, key, Type.TEXT): value for key, value in holder.version.tags.items()}
    return Facts(holder.number, holder.label, known, unknown)
