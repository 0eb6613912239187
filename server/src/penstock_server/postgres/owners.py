"""Where what has files belongs, in PostgreSQL. Every function works in the caller's transaction."""

from __future__ import annotations

import uuid

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import NotActive, NotFound
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.owners import Owner, OwnerKind, OwnerRef
from penstock_server.postgres.database import Connection, Row

_LOCATE = {
    OwnerKind.RUN: "SELECT workspace_id, experiment_id, id, lifecycle FROM runs WHERE workspace_id = $1 AND id = $2",
    OwnerKind.LOGGED_MODEL: """
SELECT workspace_id, experiment_id, id, lifecycle FROM logged_models WHERE workspace_id = $1 AND id = $2""",
    OwnerKind.TRACE: f"""
SELECT workspace_id, experiment_id, id, {Lifecycle.ACTIVE} AS lifecycle FROM traces
 WHERE workspace_id = $1 AND trace_id = $2""",  # noqa: S608  # a constant
}

# The number is any, the same for ever. A run's row itself is not held: it is the ingest's, and goes only long after
# the run was deleted. Those of others are held, so that none goes while its files are entered.
_HOLD_FILES = {
    kind: statement.replace(" FROM", ", pg_advisory_xact_lock(hashtextextended(id::text, 7364627310)) FROM", 1)
    + ("" if kind is OwnerKind.RUN else " FOR KEY SHARE")
    for kind, statement in _LOCATE.items()
}


async def locate(conn: Connection, workspace_id: WorkspaceId, owner: Owner) -> OwnerRef:
    """Where it belongs, whatever its stage. Raises NotFound."""
    return _ref(await conn.fetchrow(_LOCATE[owner.kind], workspace_id, _key(owner)), owner, active=False)


async def locate_active(conn: Connection, workspace_id: WorkspaceId, owner: Owner) -> OwnerRef:
    """Where an active one belongs, which may be deleted the next moment. Raises NotFound, NotActive."""
    return _ref(await conn.fetchrow(_LOCATE[owner.kind], workspace_id, _key(owner)), owner, active=True)


async def hold_files(conn: Connection, workspace_id: WorkspaceId, owner: Owner) -> OwnerRef:
    """Keeps others from changing which artifacts an active one has until the transaction ends.

    Raises NotFound, NotActive.
    """
    return _ref(await conn.fetchrow(_HOLD_FILES[owner.kind], workspace_id, _key(owner)), owner, active=True)


def _key(owner: Owner) -> uuid.UUID | str:
    return str(owner) if owner.kind is OwnerKind.TRACE else owner.id


def _ref(row: Row | None, owner: Owner, *, active: bool) -> OwnerRef:
    if row is None:
        raise NotFound(owner.kind.label, str(owner))
    if active and row["lifecycle"] != Lifecycle.ACTIVE:
        raise NotActive(owner.kind.label, str(owner))
    return OwnerRef(row["workspace_id"], row["experiment_id"], owner, row["id"])
