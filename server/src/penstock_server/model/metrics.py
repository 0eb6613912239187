"""Metrics: names, points and what is summed up of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.limits import check_text

KEY_LIMIT = 250
SHAPE_LIMIT = 10_000

# MLflow's rule for the keys of metrics, params and tags, so that either door can name what the other logged.
_KEY = re.compile(r"[/\w.\- :]+")


class MetricSummary(NamedTuple):
    """What is known of one metric of one run without reading its points. Times are ms since 1970 UTC.

    A tuple, since a page of runs has tens of thousands of them.
    """

    name: str
    count: int  # type: ignore[assignment]  # tuple.count, which nobody needs here
    last_step: int
    last_time_ms: int
    last_value: float
    min_value: float
    max_value: float


@dataclass(frozen=True, slots=True)
class Point:
    """One point of one metric, as LogBatch brings it."""

    name: str
    value: float
    step: int
    time_ms: int


def check_key(where: str, key: str) -> str:
    """A metric's, param's or run tag's key: a relative path of letters, digits and ``_ - . : /`` or spaces."""
    check_text(where, key, KEY_LIMIT, empty=False)
    if not _KEY.fullmatch(key):
        raise InvalidArgument(where, f"{key!r} may have letters, digits, spaces and _ - . : / only")
    if any(part in ("", ".", "..") for part in key.split("/")):
        raise InvalidArgument(where, f"{key!r} is no plain relative path: an empty, '.' or '..' part")
    return key
