"""Some of a metric's points, evenly out of all of them, for charts that draw points and no sums of them."""

from __future__ import annotations

from penstock_server.model.runs import RunId
from penstock_server.postgres import history
from penstock_server.postgres.chronology import each_once
from penstock_server.postgres.database import Database
from penstock_server.postgres.history import Position
from penstock_server.postgres.points import NO_POINTS, Columns, concatenate

# Read at a time, and kept at most but for the last: with more only every second is, then every fourth, …
_PAGE = 250_000
_KEPT = 2 * _PAGE


async def read(db: Database, run_id: RunId, metric_id: int, low: int, high: int) -> Columns:
    """A metric's points with steps from `low` to `high` by (step, time, value), each once: all, unless they are many.

    Then at least 250,000 as far apart from each other, and the last.
    """
    kept, last = NO_POINTS, NO_POINTS
    after: Position | None = None
    stride, seen = 1, 0
    while True:
        page = await history.read_page(db, run_id, metric_id, low, high, after, _PAGE)
        points = each_once(page.points, "step")
        if len(points):
            kept = concatenate([kept, points.take(slice(-seen % stride, None, stride))])
            last = points.take(slice(-1, None))
            seen += len(points)
        while len(kept) > _KEPT:
            kept, stride = kept.take(slice(None, None, 2)), 2 * stride
        after = page.end
        if after is None:
            return each_once(concatenate([kept, last]), "step")
