"""Brings in registered models with their versions, each model in one transaction."""

from __future__ import annotations

from penstock_server.importing.tally import Tally
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.imports import ImportedRegisteredModel, ImportedVersion
from penstock_server.model.limits import check_text
from penstock_server.model.registry import (
    DESCRIPTION_LIMIT,
    EventKind,
    Happening,
    ModelRef,
    Stage,
    check_alias,
    check_name,
    check_source,
    check_tags,
)
from penstock_server.postgres import imports, model_versions, registry, registry_events
from penstock_server.postgres.database import Connection, Database


async def bring_in(db: Database, caller: Caller, model: ImportedRegisteredModel, tally: Tally) -> None:
    """Makes the model, and those of its versions that are not here, with their numbers."""
    source = {"registered models": 1, "versions": len(model.versions), "aliases": len(model.aliases)}
    try:
        _check(model)
    except InvalidArgument as error:
        tally.missing(f"registered model {model.name!r}", error)
        tally.compare(f"registered model {model.name!r}", source, {})
        return
    async with db.transaction() as conn:
        here = await _bring_in(conn, caller, model, tally)
    tally.compare(f"registered model {model.name!r}", source, here)


async def _bring_in(conn: Connection, caller: Caller, model: ImportedRegisteredModel, tally: Tally) -> dict[str, int]:
    made = await registry.add(conn, caller, model.name, model.description)
    if made is not None:
        ref, happened = made
        happened += await registry.put_tags(conn, ref, model.tags)
    else:
        ref, happened = await registry.lock(conn, caller.workspace_id, model.name), []
    there, added = await imports.versions(conn, ref), []
    for version in model.versions:
        if version.version not in there:
            happened += await _add(conn, ref, version)
            added.append(version)
        elif there[version.version] != version.created_ms:
            tally.missing(f"version {version.version} of {model.name!r}", "another one of that number is here already")
    fresh = {each.version for each in added}
    for alias, number in model.aliases.items():
        if number in fresh and not await model_versions.named(conn, ref, alias):
            version_here = await model_versions.load_one(conn, ref, number)
            happened += (await model_versions.move_alias(conn, caller, ref, alias, version_here))[1]
    await registry_events.add(conn, caller, ref.model_id, model.name, happened)
    await imports.keep_version_times(conn, ref, added)
    if made is not None:
        await imports.keep_model_times(conn, ref, model.created_ms, model.updated_ms)
    now = await imports.versions(conn, ref)
    same = sum(now.get(each.version) == each.created_ms for each in model.versions)
    aliases = [await model_versions.named(conn, ref, alias) for alias in model.aliases]
    return {"registered models": 1, "versions": same, "aliases": sum(map(bool, aliases))}


async def _add(conn: Connection, ref: ModelRef, version: ImportedVersion) -> list[Happening]:
    await imports.add_version(conn, ref, version)
    made = await model_versions.load_one(conn, ref, version.version)
    after = {
        "source": version.source,
        "run_id": version.run_id.hex if version.run_id else "",
        "path": version.path,
        "status": version.status.label,
        "description": version.description,
    }
    happened = [Happening(EventKind.VERSION_CREATED, version.version, after=after)]
    happened += await model_versions.put_tags(conn, ref.workspace_id, made, version.tags)
    if version.stage is not Stage.NONE:
        happened += await model_versions.move_stage(conn, ref, made, version.stage)
    return happened


def _check(model: ImportedRegisteredModel) -> None:
    check_name(model.name)
    check_text("description", model.description, DESCRIPTION_LIMIT)
    check_tags(model.tags)
    for alias in model.aliases:
        check_alias(alias)
    for version in model.versions:
        check_source(version.source)
        check_text("description", version.description, DESCRIPTION_LIMIT)
        check_tags(version.tags)
