"""Whether a store is the one that a database's artifacts are in: an object there, the mark, says so.

What is removed from another would be forgotten, and stay for ever where it is: as when a disk is not mounted, or `gc`
runs with the settings of another machine.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from penstock_server.blobs.store import Store
from penstock_server.blobs.watched import Watched
from penstock_server.model.errors import NotFound, PenstockError, StoreRefused
from penstock_server.postgres import mark
from penstock_server.postgres.database import Database

KEY = ".penstock"

_LENGTH = 36
_LOOK_SECONDS = 30.0


async def place(db: Database, store: Store) -> None:
    """Marks the store, once in a database's life. One that has a mark already is known by that from then on.

    Replicas may do so at once: what they write is the same.
    """
    async with db.connection() as conn:
        found = await mark.find(conn)
    if found.placed:
        return
    text = None
    with suppress(StoreRefused):  # a directory that is not there yet
        text = await _read(store)
    if text is None:
        text = found.text
        await store.put(KEY, text.encode(), "text/plain")
    async with db.connection() as conn:
        await mark.placed(conn, text)


async def check(db: Database, store: Store) -> None:
    """Raises StoreRefused when it is another store. All is well before one is marked: nothing is in it yet."""
    async with db.connection() as conn:
        found = await mark.find(conn)
    if found.placed and await _read(store) != found.text:
        raise StoreRefused(
            f"{store.uri(KEY)} is not what it was, so artifacts are in another store than this one",
            f"mount it, or correct artifacts_root; if they are in this one after all, write {found.text} into that",
        )


async def watch(db: Database, store: Watched, seconds: float = _LOOK_SECONDS) -> None:
    """Looks for the mark now and then, for ever: that a store is away, or back, is known also when nobody uses it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await check(db, store)
        except StoreRefused as error:
            store.failed("mark", error)
        except PenstockError:
            pass  # the store's has been told, the database's is none of its affair
        else:
            store.went_well("mark")


async def _read(store: Store) -> str | None:
    try:
        return b"".join([chunk async for chunk in store.read(KEY, 0, _LENGTH)]).decode("ascii", "replace")
    except NotFound:
        return None
