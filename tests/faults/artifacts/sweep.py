"""The server's own sweeper, called when a test wants it, on rows that were made old enough for it."""

from __future__ import annotations

from artifacts.depots import Directory


async def sweep(dsn: str, depot: Directory) -> None:
    """Removes all that is not an artifact."""
