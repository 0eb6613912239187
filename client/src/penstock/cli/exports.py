"""Points of runs as CSV or Parquet: one row per point, one metric in memory at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from penstock.calls import need
from penstock.client import Client
from penstock.metrics import History

COLUMNS = ("run_id", "name", "step", "time_ms", "value")


def histories(client: Client, runs: Sequence[str], names: Sequence[str]) -> Iterator[History]:
    """Every metric of every run, or those of `names`. Raises ValueError for a name that none of the runs has."""
    summaries = client.metric_summaries(runs, names)
    if missing := set(names).difference(*summaries.values()):
        raise ValueError(f"no such metric in these runs: {', '.join(sorted(missing))}")
    return (client.metric_history(run, name) for run in runs for name in summaries.get(run, ()))


def write_csv(found: Iterable[History], file: IO[str]) -> int:
    """Returns the number of points."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    points = 0
    for each in found:
        rows = zip(each.steps, each.times_ms, each.values, strict=True)
        writer.writerows((each.run_id, each.name, step, time_ms, repr(value)) for step, time_ms, value in rows)
        points += len(each)
    return points


def write_parquet(found: Iterable[History], path: str) -> int:
    """A row group per metric; `time` is a timestamp in UTC. Returns the number of points."""
    arrow: Any = need("pyarrow", "Parquet")
    parquet: Any = need("pyarrow.parquet", "Parquet")
    texts = arrow.dictionary(arrow.int32(), arrow.string())
    schema = arrow.schema(
        [
            ("run_id", texts),
            ("name", texts),
            ("step", arrow.int64()),
            ("time", arrow.timestamp("ms", tz="UTC")),
            ("value", arrow.float64()),
        ]
    )
    points = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for each in found:
            size = len(each)
            indices = arrow.array([0] * size, arrow.int32())
            columns = [
                arrow.DictionaryArray.from_arrays(indices, arrow.array([each.run_id])),
                arrow.DictionaryArray.from_arrays(indices, arrow.array([each.name])),
                _column(arrow, arrow.int64(), each.steps),
                _column(arrow, arrow.timestamp("ms", tz="UTC"), each.times_ms),
                _column(arrow, arrow.float64(), each.values),
            ]
            writer.write_table(arrow.table(columns, schema=schema))
            points += size
    return points


def _column(arrow: Any, kind: Any, numbers: Any) -> Any:
    """On the same memory."""
    return arrow.Array.from_buffers(kind, len(numbers), [None, arrow.py_buffer(numbers)])
