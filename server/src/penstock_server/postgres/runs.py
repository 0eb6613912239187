"""Runs in PostgreSQL. Every function works in the caller's transaction; lock order: experiment, then run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from penstock_server.model.access import WorkspaceId
from penstock_server.model.changes import RunRef
from penstock_server.model.errors import NotActive, NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.runs import NewRun, Run, RunId, RunStatus, format_run_id
from penstock_server.model.streams import WriterId
from penstock_server.postgres import metrics
from penstock_server.postgres.database import Connection, Row

# A taken id or request id inserts nothing: neither does the id of something else that has files, which the two would
# share. While another inserts the same, this waits for how that ends.
_ADD = """
WITH run AS (
    INSERT INTO runs (id, workspace_id, experiment_id, name, status, user_name, source_name, git_commit, parent_run_id,
                      start_ms, end_ms, created_ms, updated_ms, request_id)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9,
           coalesce($10, t.ms), CASE WHEN $11 THEN greatest($10, t.ms) END, t.ms, t.ms, $12
      FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t
     WHERE NOT EXISTS (SELECT FROM removed_runs WHERE id = $1)
       AND NOT EXISTS (SELECT FROM logged_models WHERE id = $1) AND NOT EXISTS (SELECT FROM traces WHERE id = $1)
    ON CONFLICT DO NOTHING RETURNING id, workspace_id, experiment_id),
params AS (
    INSERT INTO run_params (run_id, workspace_id, experiment_id, key, value)
    SELECT run.*, p.key, p.value FROM run, unnest($13::text[], $14::text[]) AS p (key, value)),
tags AS (
    INSERT INTO run_tags (run_id, workspace_id, experiment_id, key, value)
    SELECT run.*, t.key, t.value FROM run, unnest($15::text[], $16::text[]) AS t (key, value))
SELECT id FROM run
"""


async def add(conn: Connection, run: RunRef, new: NewRun) -> bool:
    """Makes the run with its params and tags. False when its id or its request id is taken, or its id was once."""
    made = await conn.fetchval(
        _ADD,
        run.run_id,
        run.workspace_id,
        run.experiment_id,
        new.name,
        new.status,
        new.user,
        new.source_name,
        new.git_commit,
        new.parent_run_id,
        new.start_ms or None,
        new.status.ended,
        new.request_id or None,
        list(new.params),
        list(new.params.values()),
        list(new.tags),
        list(new.tags.values()),
    )
    return made is not None


_REMOVED = "SELECT EXISTS (SELECT FROM removed_runs WHERE id = $1)"


async def removed(conn: Connection, run_id: RunId) -> bool:
    """Whether a run of this id was removed for good."""
    found: bool = await conn.fetchval(_REMOVED, run_id)
    return found


# Ids are unique over all workspaces, request ids inside one. A run of the request goes before a run of the id.
_MADE = """
SELECT id, workspace_id = $1 AS ours FROM runs
 WHERE id = $2 OR (workspace_id = $1 AND request_id = $3)
 ORDER BY request_id = $3 DESC NULLS LAST LIMIT 1
"""


async def made(
    conn: Connection, workspace_id: WorkspaceId, run_id: RunId, request_id: str
) -> tuple[RunId, bool] | None:
    """The run that an earlier request with the same id or request id made, and whether it is of this workspace."""
    row = await conn.fetchrow(_MADE, workspace_id, run_id, request_id or None)
    return None if row is None else (row[0], row[1])


# The order of the ids; ids of other workspaces give nothing.
_FIELDS = """r.id, r.experiment_id, r.name, r.status, r.lifecycle, r.user_name, r.source_name, r.git_commit,
       r.parent_run_id, r.start_ms, r.end_ms, r.updated_ms, r.refused_records, r.lost_records,
       e.artifact_location"""
_LOAD = f"""
SELECT {_FIELDS}
  FROM unnest($2::uuid[]) WITH ORDINALITY AS wanted (id, position) JOIN runs r USING (id)
  JOIN experiments e ON e.id = r.experiment_id
 WHERE r.workspace_id = $1 ORDER BY wanted.position
"""  # noqa: S608  # only constants are put together
_LOAD_PARAMS = "SELECT run_id, key, value FROM run_params WHERE run_id = ANY($1) AND workspace_id = $2"
_LOAD_TAGS = "SELECT run_id, key, value FROM run_tags WHERE run_id = ANY($1) AND workspace_id = $2"


async def load(
    conn: Connection,
    workspace_id: WorkspaceId,
    ids: Sequence[RunId],
    *,
    info_only: bool = False,
    summaries: bool = True,
) -> list[Run]:
    """These runs, in this order, without those that do not exist.

    With their own fields only when `info_only`, and without their metrics unless `summaries`.
    """
    rows = await conn.fetch(_LOAD, workspace_id, ids)
    runs = [_run(row) for row in rows]
    if runs and not info_only:
        by_id = {run.id: run for run in runs}
        for run_id, key, value in await conn.fetch(_LOAD_PARAMS, ids, workspace_id):
            by_id[run_id].params[key] = value
        for run_id, key, value in await conn.fetch(_LOAD_TAGS, ids, workspace_id):
            by_id[run_id].tags[key] = value
        if summaries:
            for run_id, found in (await metrics.summaries(conn, workspace_id, ids, None)).items():
                by_id[run_id].metrics.extend(found)
    return runs


async def load_one(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> Run:
    """One run with all there is of it, whatever its stage. Raises NotFound."""
    found = await load(conn, workspace_id, [run_id])
    if not found:
        raise NotFound("run", format_run_id(run_id))
    return found[0]


def _run(row: Row) -> Run:
    id_, experiment_id, name, status, lifecycle, *others = row
    return Run(id_, experiment_id, name, RunStatus(status), Lifecycle(lifecycle), *others)


_IDS = """
SELECT id FROM runs
 WHERE workspace_id = $1 AND ($2::bigint[] IS NULL OR experiment_id = ANY($2))
   AND ($3::smallint IS NULL OR lifecycle = $3)
 ORDER BY start_ms DESC, id
"""


async def ids(
    conn: Connection,
    workspace_id: WorkspaceId,
    experiment_ids: Collection[ExperimentId] | None,
    lifecycle: Lifecycle | None,
) -> list[RunId]:
    """The runs of these experiments (None: of all) in this stage (None: any), newest first."""
    return [row[0] for row in await conn.fetch(_IDS, workspace_id, experiment_ids, lifecycle)]


_LOCATE = "SELECT workspace_id, experiment_id, id, lifecycle FROM runs WHERE workspace_id = $1 AND id = $2"
_LOCK = _LOCATE + " FOR NO KEY UPDATE"


async def locate(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> RunRef:
    """Where a run belongs, whatever its stage. Raises NotFound."""
    return _ref(await conn.fetchrow(_LOCATE, workspace_id, run_id), run_id, active=False)


async def locate_active(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> RunRef:
    """Where an active run belongs, which may be deleted the next moment. Raises NotFound, NotActive."""
    return _ref(await conn.fetchrow(_LOCATE, workspace_id, run_id), run_id, active=True)


async def lock_active(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> RunRef:
    """Keeps others from changing an active run until the transaction ends. Raises NotFound, NotActive."""
    return _ref(await conn.fetchrow(_LOCK, workspace_id, run_id), run_id, active=True)


# SHARE: what is made of a run is made by any number at once, and not while the run is being deleted.
_SHARE = _LOCATE + " FOR SHARE"


async def hold_active(conn: Connection, workspace_id: WorkspaceId, run_id: RunId) -> RunRef:
    """Keeps an active run from being deleted until the transaction ends. Raises NotFound, NotActive."""
    return _ref(await conn.fetchrow(_SHARE, workspace_id, run_id), run_id, active=True)


def _ref(row: Row | None, run_id: RunId, *, active: bool) -> RunRef:
    if row is None:
        raise NotFound("run", format_run_id(run_id))
    if active and row["lifecycle"] != Lifecycle.ACTIVE:
        raise NotActive("run", format_run_id(run_id))
    return RunRef(row["workspace_id"], row["experiment_id"], row["id"])


# No lock: a batch that commits while its run is being deleted came before the deletion.
_ACTIVE = "SELECT id FROM runs WHERE id = ANY($1) AND lifecycle = 1"


async def active(conn: Connection, run_ids: Sequence[RunId]) -> set[RunId]:
    """Which of these runs are active."""
    return {row[0] for row in await conn.fetch(_ACTIVE, run_ids)}


# The end of a run that has ended already stays where it is, so an update may be repeated; a run that
# goes on again has not ended.
_UPDATE = f"""
UPDATE runs r SET
    name       = coalesce($3, r.name),
    status     = coalesce($4, r.status),
    end_ms     = coalesce($6, CASE WHEN $5 THEN coalesce(r.end_ms, t.ms) WHEN $4 IS NULL THEN r.end_ms END),
    updated_ms = greatest(r.updated_ms, t.ms)
  FROM experiments e, (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t
 WHERE r.workspace_id = $1 AND r.id = $2 AND e.id = r.experiment_id
RETURNING {_FIELDS}
"""  # noqa: S608  # only constants are put together


async def update(conn: Connection, run: RunRef, name: str | None, status: RunStatus | None, end_ms: int | None) -> Run:
    """Changes what is not None of a locked run, and returns its own fields."""
    ends = status is not None and status.ended
    return _run(await conn.fetchrow(_UPDATE, run.workspace_id, run.run_id, name, status, ends, end_ms))


_RESUME = """
UPDATE runs SET status = 1, end_ms = NULL,
       updated_ms = greatest(updated_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE id = $1 AND lifecycle = 1 AND status IN (3, 4, 5) RETURNING id
"""
_RESUMED = """
UPDATE runs SET resumed_ms = $2, resumed_by = $3
 WHERE id = $1 AND lifecycle = 1 AND (resumed_ms IS NULL OR resumed_ms <= $2)
"""
_WENT_ON = "SELECT resumed_by <> $2 AND resumed_ms > $3 FROM runs WHERE id = $1"


async def resume(conn: Connection, run: RunRef, writer_id: WriterId, now_ms: int) -> bool:
    """Lets a run that has ended run again, without an end. Whether it had ended.

    `now_ms` is by the clock of the writer that goes on with it.
    """
    await conn.execute(_RESUMED, run.run_id, now_ms, writer_id)
    return await conn.fetchval(_RESUME, run.run_id) is not None


async def went_on(conn: Connection, run: RunRef, writer_id: WriterId, end_ms: int) -> bool:
    """Whether another writer has gone on with the run after `end_ms`, when this one says that it ended."""
    return bool(await conn.fetchval(_WENT_ON, run.run_id, writer_id, end_ms))


# The run first and then what it has: whoever writes a run's params or tags takes its lock before.
_HOLD = "SELECT FROM runs WHERE id = $1 FOR NO KEY UPDATE"
_TOUCH = """
UPDATE runs SET updated_ms = greatest(updated_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
 WHERE id = $1
"""

# The first value of a param stays.
_ADD_PARAMS = """
INSERT INTO run_params (run_id, workspace_id, experiment_id, key, value)
SELECT $1, $2, $3, p.key, p.value FROM unnest($4::text[], $5::text[]) AS p (key, value)
ON CONFLICT (run_id, key) DO NOTHING RETURNING key
"""
_PARAMS = "SELECT key, value FROM run_params WHERE run_id = $1 AND key = ANY($2)"


async def add_params(conn: Connection, run: RunRef, params: Mapping[str, str]) -> dict[str, str]:
    """Records the params that are not there, and returns what is recorded now under all these keys."""
    await conn.execute(_HOLD, run.run_id)
    keys, values = list(params), list(params.values())
    if await conn.fetch(_ADD_PARAMS, run.run_id, run.workspace_id, run.experiment_id, keys, values):
        await conn.execute(_TOUCH, run.run_id)
    return {row[0]: row[1] for row in await conn.fetch(_PARAMS, run.run_id, keys)}


_TAG = "SELECT value FROM run_tags WHERE run_id = $1 AND key = $2"


async def tag(conn: Connection, run: RunRef, key: str) -> str | None:
    """The value of a tag; None when it is not there."""
    found: str | None = await conn.fetchval(_TAG, run.run_id, key)
    return found


_PUT_TAGS = """
INSERT INTO run_tags AS old (run_id, workspace_id, experiment_id, key, value)
SELECT $1, $2, $3, t.key, t.value FROM unnest($4::text[], $5::text[]) AS t (key, value)
ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value WHERE old.value <> excluded.value
RETURNING key
"""


async def put_tags(conn: Connection, run: RunRef, tags: Mapping[str, str]) -> None:
    """Sets tags, replacing those of the same key."""
    await conn.execute(_HOLD, run.run_id)
    keys, values = list(tags), list(tags.values())
    if await conn.fetch(_PUT_TAGS, run.run_id, run.workspace_id, run.experiment_id, keys, values):
        await conn.execute(_TOUCH, run.run_id)


_DROP_TAGS = "DELETE FROM run_tags WHERE run_id = $1 AND key = ANY($2) RETURNING key"


async def drop_tags(conn: Connection, run: RunRef, keys: Collection[str]) -> None:
    """Removes tags of a locked run. Raises NotFound; roll back then, since the others are removed."""
    dropped = {row[0] for row in await conn.fetch(_DROP_TAGS, run.run_id, keys)}
    for key in keys:
        if key not in dropped:
            raise NotFound("tag", key)
    if dropped:
        await conn.execute(_TOUCH, run.run_id)


_SET_LIFECYCLE = """
UPDATE runs SET lifecycle = $2, deleted_ms = CASE WHEN $2 = 2 THEN t.ms END, updated_ms = greatest(updated_ms, t.ms)
  FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS ms) t
 WHERE id = $1 AND lifecycle <> $2 AND NOT removing RETURNING id
"""
_REMOVING = "SELECT removing FROM runs WHERE id = $1"


async def set_lifecycle(conn: Connection, run: RunRef, lifecycle: Lifecycle) -> bool:
    """Deletes or restores a run. Whether it was in the other stage before. Raises NotFound when it is being removed."""
    if await conn.fetchval(_SET_LIFECYCLE, run.run_id, lifecycle) is not None:
        return True
    if lifecycle is Lifecycle.ACTIVE and await conn.fetchval(_REMOVING, run.run_id) is not False:
        raise NotFound("run", format_run_id(run.run_id))
    return False
