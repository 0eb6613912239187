"""Who may do what. The one place that says yes or no, for both doors."""

from __future__ import annotations

from penstock_server.model.access import Caller, Need, WorkspaceId
from penstock_server.model.errors import NotFound
from penstock_server.postgres import access
from penstock_server.postgres.database import Database

_NAME_LIMIT = 250


class Access:
    """Authorises requests. Until there are accounts, whoever reaches the server may do everything."""

    def __init__(self, db: Database) -> None:
        self._db = db
        # A workspace keeps its id for ever, so what was found once needs no asking again.
        self._workspaces: dict[str, WorkspaceId] = {}

    async def authorise(self, principal: str, workspace: str, need: Need) -> Caller:
        """The caller of a request that needs `need` in the workspace of that name. Raises NotFound."""
        workspace_id = self._workspaces.get(workspace)
        if workspace_id is None:
            workspace_id = self._workspaces[workspace] = await self._find(workspace)
        return Caller(principal, workspace_id)

    async def allow(self, caller: Caller, need: Need) -> None:
        """That a caller who is known already needs this as well: what is asked for was not known before."""

    async def _find(self, workspace: str) -> WorkspaceId:
        found = None
        if len(workspace) <= _NAME_LIMIT and "\0" not in workspace:
            async with self._db.connection() as conn:
                found = await access.workspace_named(conn, workspace)
        if found is None:
            raise NotFound("workspace", workspace[:_NAME_LIMIT])
        return found
