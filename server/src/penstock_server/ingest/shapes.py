"""Shapes: the tuples of metric names that frames are of, resolved to a run's metric ids.

One `Shape` object stands for one tuple of names of one run, in all streams of this process, so that
frames of several writers are known to be alike by identity.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.metrics import SHAPE_LIMIT, check_key
from penstock_server.model.runs import RunId
from penstock_server.postgres import metrics
from penstock_server.postgres.database import Database

# How many names the cache holds, of all shapes of all runs: some 50 MB.
_NAMES_KEPT = 500_000


class Shape:
    """Some metrics of a run, in the order of a frame's values."""

    __slots__ = ("ids", "names")

    def __init__(self, names: tuple[str, ...], ids: Sequence[int]) -> None:
        self.names = names
        self.ids = np.array(ids, np.int32)

    def __len__(self) -> int:
        return len(self.names)


def check_shape(names: tuple[str, ...]) -> None:
    """Raises InvalidArgument unless the names are 1 to 10,000 distinct metric names."""
    if not 0 < len(names) <= SHAPE_LIMIT:
        raise InvalidArgument("new_shapes", f"a shape has 1 to {SHAPE_LIMIT} names, not {len(names)}; log in parts")
    for name in names:
        check_key("metric name", name)
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument("new_shapes", f"{twice!r} stands twice in one shape; a frame has one value a name")


class Shapes:
    """The shapes that this process was last logging, by run and names. Ids never change, no removed run comes again."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[tuple[RunId, tuple[str, ...]], Shape] = OrderedDict()
        self._size = 0

    async def resolve(self, run_id: RunId, names: tuple[str, ...]) -> Shape:
        """The shape of these names, whose metrics are given ids when they are new. Raises InvalidArgument, NotFound."""
        (shape,) = await self.resolve_all(run_id, [names])
        return shape

    async def resolve_all(self, run_id: RunId, groups: Sequence[tuple[str, ...]]) -> list[Shape]:
        """The shapes of several groups of names. Those that are not known are asked for at once."""
        found = {names: self._recall(run_id, names) for names in dict.fromkeys(groups)}
        unknown = [names for names, shape in found.items() if shape is None]
        if unknown:
            for names in unknown:
                check_shape(names)
            ids = await metrics.metric_ids(self._db, run_id, list({name for names in unknown for name in names}))
            for names in unknown:
                found[names] = self._keep(run_id, Shape(names, [ids[name] for name in names]))
        return [shape for names in groups if (shape := found[names]) is not None]

    def _recall(self, run_id: RunId, names: tuple[str, ...]) -> Shape | None:
        known = self._known.get((run_id, names))
        if known is not None:
            self._known.move_to_end((run_id, names))
        return known

    def _keep(self, run_id: RunId, shape: Shape) -> Shape:
        # Another stream may have resolved the same names in the meantime: the first object stays the one.
        first = self._known.setdefault((run_id, shape.names), shape)
        if first is shape:
            self._size += _weight(shape)
            while self._size > _NAMES_KEPT and len(self._known) > 1:
                _, oldest = self._known.popitem(last=False)
                self._size -= _weight(oldest)
        return first


def _weight(shape: Shape) -> int:
    """What a shape takes of the room there is, in names: what it takes without any is about as much as four."""
    return len(shape) + 4
