"""What is said of something that broke off is said to its end.

A client that is gone is told of twice: its stream ends, and then the task of the call is cancelled. The second may come
while the first is dealt with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Its outcome. Who is cancelled meanwhile, however often, hears of it afterwards: `work` must end by itself."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    outcome = task.result()
    if cancelled is not None:
        raise cancelled
    return outcome
