"""The registry's history: what has happened, and what happens now, told as it is committed by any replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass

import structlog

from penstock_server.model import pages
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import InvalidArgument, Unavailable
from penstock_server.model.limits import INT64_MAX, check_text
from penstock_server.model.registry import TAG_KEY_LIMIT, Event, EventKind, check_name
from penstock_server.postgres import registry_events
from penstock_server.postgres.database import Database
from penstock_server.postgres.listener import Listener

# The most names and the most keys that one watch may have.
MOST_NAMES = 1_000

_KEY_LIMIT = max(255, TAG_KEY_LIMIT)
# Read at once for one watcher, at most.
_PAGE = 100
# While nothing that is watched happens, a watcher is told how far it is no oftener than this, in seconds.
_SYNCED_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Synced:
    """All up to this event is told; every one committed from here on will be."""

    event_id: int


class RegistryEvents:
    """Lists and tells events. Everything may raise InvalidArgument and Unavailable."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._listener = Listener(db, registry_events.CHANNEL, self._heard, self._wake)
        self._watchers: dict[asyncio.Event, WorkspaceId] = {}
        self._stopped = False

    async def run(self) -> None:
        """Listens to what replicas commit, until it is cancelled."""
        await self._listener.run()

    def stop(self) -> None:
        """Ends every watch with Unavailable, so that watchers go to another replica. May be called again."""
        self._stopped = True
        self._wake()

    async def list(
        self,
        caller: Caller,
        name: str = "",
        *,
        version: int = 0,
        kinds: Collection[EventKind] = (),
        key: str = "",
        oldest_first: bool = False,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[Event], str]:
        """One page, and the next's token. Raises InvalidPageToken.

        Of the model that is called so now, whatever it was called then, and of others while they were called so; of all
        models when there is no name. Only of one version (0: of all), of these kinds (none: of all), of one key. Where
        they are long a page has fewer.
        """
        if name:
            check_name(name)
        if version < 0:
            raise InvalidArgument("version", f"{version} is no version's number; 0 means all")
        check_text("key", key, _KEY_LIMIT)
        limit = pages.check_size(page_size)
        query = ("registry events", caller.workspace_id, name, version, sorted(kinds), key, oldest_first)
        behind = pages.decode_id(query, page_token) if page_token else None
        async with self._db.connection() as conn:
            found, more = await registry_events.listed(
                conn,
                caller.workspace_id,
                name,
                limit,
                version=version,
                kinds=kinds,
                key=key,
                oldest_first=oldest_first,
                behind=behind,
            )
        return found, pages.encode(query, (found[-1].id,)) if more else ""

    async def watch(
        self,
        caller: Caller,
        *,
        names: Collection[str] = (),
        kinds: Collection[EventKind] = (),
        keys: Collection[str] = (),
        after: int | None = None,
    ) -> AsyncIterator[Event | Synced]:
        """Events behind the one with id `after` (None: committed from now on), each once, in order.

        Raises InvalidArgument when there is no such event yet: the database is not the one that it was heard of.
        With one of these names at the time (or, of a renaming, the new one), of these kinds, with one of these keys;
        where there are none, of any. Ends with Unavailable when the watch cannot go on: watch again then, after the
        last that was told.
        """
        _check_watch(names, keys, after)
        workspace_id = caller.workspace_id
        woken = asyncio.Event()
        self._watchers[woken] = workspace_id
        try:
            last = after
            synced = 0.0
            while True:
                woken.clear()
                if self._stopped:
                    raise Unavailable("the server is stopping; another will answer", 0.5)
                async with self._db.connection() as conn:
                    newest = await registry_events.newest(conn, workspace_id)
                    last = newest if last is None else last
                    if last > newest:
                        raise InvalidArgument(
                            "after_event_id",
                            f"event {last} has not happened: this history ends with event {newest}; if the database"
                            " was restored, look at how things are, and watch from there",
                        )
                    events, more = await registry_events.between(
                        conn, workspace_id, last, newest, _PAGE, names=names, kinds=kinds, keys=keys
                    )
                for event in events:
                    yield event
                if more:
                    last = events[-1].id
                    continue
                last = max(last, newest)
                if not synced or time.monotonic() - synced >= _SYNCED_SECONDS:
                    yield Synced(last)
                    synced = time.monotonic()
                await woken.wait()
        finally:
            del self._watchers[woken]

    def _heard(self, payload: str) -> None:
        """Wakes who watches the workspace; what there is to tell is read."""
        try:
            workspace_id = WorkspaceId(int(payload.partition(" ")[0]))
        except ValueError:
            log.warning("a notification of an unknown kind was passed over", payload=payload[:100])
            return
        for woken, watched in self._watchers.items():
            if watched == workspace_id:
                woken.set()

    def _wake(self) -> None:
        for woken in self._watchers:
            woken.set()


def _check_watch(names: Collection[str], keys: Collection[str], after: int | None) -> None:
    for field, texts in (("names", names), ("keys", keys)):
        if len(texts) > MOST_NAMES:
            raise InvalidArgument(field, f"at most {MOST_NAMES:,}, found {len(texts):,}; watch all")
    for name in names:
        check_name(name, "names")
    for key in keys:
        check_text("keys", key, _KEY_LIMIT, empty=False)
    if after is not None and not 0 <= after <= INT64_MAX:
        raise InvalidArgument("after_event_id", f"{after} is no event's id")
