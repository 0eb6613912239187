"""Points of metrics, as JSON has them and as columns.

A batch has a thousand points and a page of a history many thousands. The columns are taken out of the JSON, and put
into it, as a whole; only where something is not as clients send it are the points of a batch looked at one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock_server.core.metrics import Columns
from penstock_server.mlflow.arguments import Arguments, number
from penstock_server.model.limits import TIME_MS_MAX
from penstock_server.model.logged_models import ModelPoint

_MAX = sys.float_info.max


def batch(arguments: Arguments) -> tuple[Sequence[str], Columns]:
    """The field `metrics`: the metric of each point, and the points. Raises MlflowError."""
    metrics = arguments.get("metrics")
    return (metrics and _as_sent(metrics)) or one_by_one(arguments.messages("metrics"))


def _as_sent(metrics: Any) -> tuple[Sequence[str], Columns] | None:  # it may be anything
    """What clients send; None when it is anything else."""
    try:
        names = [each["key"] for each in metrics]
        values = [each["value"] for each in metrics]
        times = [each["timestamp"] for each in metrics]
        steps = [each["step"] for each in metrics]
        as_sent = (
            set(map(type, names)) == {str}
            and set(map(type, values)) <= {float, int}
            and set(map(type, times)) == {int} == set(map(type, steps))
            and all(names)
            and 0 <= min(times) <= max(times) <= TIME_MS_MAX
        )
        if not as_sent:
            return None
        return names, Columns(np.array(steps, np.int64), np.array(times, np.int64), np.array(values, np.float64))
    except (KeyError, TypeError, OverflowError):
        return None


def one_by_one(metrics: Iterable[Arguments]) -> tuple[Sequence[str], Columns]:
    """The metric of each point, and the points. Raises MlflowError."""
    names: list[str] = []
    points: list[tuple[int, int, float]] = []
    for each in metrics:
        names.append(each.required("key"))
        for name in ("value", "timestamp"):
            if name not in each:
                raise each.lacking(name)
        given = each.get("value")
        value = float(given) if isinstance(given, bool) else number(given)
        if value is None:
            raise each.wrong("value", given, "Please specify value as a valid double (64-bit floating point)")
        time_ms = each.integer("timestamp", low=0, high=TIME_MS_MAX)
        points.append((each.integer("step"), time_ms, value))
    steps, times, values = zip(*points, strict=True) if points else ((), (), ())
    return names, Columns(np.array(steps, np.int64), np.array(times, np.int64), np.array(values, np.float64))


def of_models(metrics: Sequence[Arguments], names: Sequence[str], points: Columns) -> list[ModelPoint]:
    """Those of the points that are of a logged model too. Raises MlflowError."""
    rows = zip(metrics, names, points.values.tolist(), points.times_ms.tolist(), points.steps.tolist(), strict=True)
    return [
        ModelPoint(model_id, key, value, time_ms, step, each.text("dataset_name"), each.text("dataset_digest"))
        for each, key, value, time_ms, step in rows
        if (model_id := each.text("model_id"))
    ]


def written(name: str, points: Columns, run_id: str = "") -> bytes:
    """At least one point of a metric, as objects one after another; with `run_id`, each names its run.

    Put together by hand, which takes half the time of making an object for each.
    """
    columns = [_texts(column) for column in (points.values.clip(-_MAX, _MAX), points.times_ms, points.steps)]
    for position in np.flatnonzero(np.isnan(points.values)).tolist():
        columns[0][position] = b'"NaN"'
    fields: list[bytes] = [b""] * (3 * len(points))
    for position, column in enumerate(columns):
        fields[position::3] = column
    key = orjson.dumps(name).replace(b"%", b"%%")
    run = b',"run_id":"%b"' % run_id.encode() if run_id else b""
    row = b'{"key":%b,"value":%%b,"timestamp":%%b,"step":%%b%b},' % (key, run)
    return (row * len(points) % tuple(fields))[:-1]


def _texts(column: NDArray[Any]) -> list[bytes]:
    return orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
