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

_RUNS_KEPT = 4096
_SHAPES_KEPT = 1024  # of one run; a job has a handful, single batches may bring many


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
    """The shapes of the runs that this process was last logging to. Ids never change, so nothing goes stale."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._runs: OrderedDict[RunId, dict[tuple[str, ...], Shape]] = OrderedDict()

    async def resolve(self, run_id: RunId, names: tuple[str, ...]) -> Shape:
        """The shape of these names, whose metrics are given ids when they are new. Raises InvalidArgument, NotFound."""
        known = self._runs.get(run_id)
        if known is not None and names in known:
            self._runs.move_to_end(run_id)
            return known[names]
        check_shape(names)
        ids = await metrics.metric_ids(self._db, run_id, names)
        known = self._runs.setdefault(run_id, {})
        while len(self._runs) > _RUNS_KEPT:
            self._runs.popitem(last=False)
        if len(known) >= _SHAPES_KEPT:
            known.clear()
        # Another stream may have resolved the same names in the meantime: the first object stays the one.
        return known.setdefault(names, Shape(names, [ids[name] for name in names]))
