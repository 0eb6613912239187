"""What each command does. Functions bear the names that `arguments` gives."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from penstock.bars import count_of, files_of
from penstock.cli import artifacts, exports, references, spools
from penstock.cli import models as registry
from penstock.cli.plot import plot
from penstock.cli.tables import table
from penstock.client import Client
from penstock.errors import FailedPrecondition, PenstockError
from penstock.runs import Run, RunStatus

_METRICS_SHOWN = 3
_VERSIONS_NAMED = 10


def experiments_list(args: argparse.Namespace) -> None:
    """`penstock experiments list`."""
    with Client(args.url) as client:
        found = client.search_experiments(args.filter, args.order_by, args.limit)
    if args.json:
        for each in found:
            print(_json(dataclasses.asdict(each)))
        return
    rows = [[each.id, each.name, _when(each.create_time_ms), _pairs(each.tags)] for each in found]
    print(table(["id", "name", "created", "tags"], rows))


def runs_list(args: argparse.Namespace) -> None:
    """`penstock runs list`."""
    with Client(args.url) as client:
        for name in args.experiment:
            client.get_experiment_by_name(name)  # one that there is not is an error, not an empty list
        found = client.search_runs(args.experiment, args.filter, args.order_by, args.limit)
    if args.json:
        for each in found:
            print(_json(_plain(each)))
        return
    rows = [
        [each.id, each.name, each.status.name.lower(), _when(each.start_time_ms), _duration(each), _latest(each)]
        for each in found
    ]
    print(table(["run", "name", "status", "started", "took", "metrics"], rows))
    if found.next_page_token:
        print(f"(the first {args.limit}; more with --limit)", file=sys.stderr)


def runs_show(args: argparse.Namespace) -> None:
    """`penstock runs show`."""
    with Client(args.url) as client:
        run = client.get_run(references.run_id(client, args.run))
        if args.json:
            print(_json(_plain(run)))
            return
        experiment = client.get_experiment(run.experiment_id)
        files = _files(client, run.id)
    told = [
        ["run", run.id],
        ["name", run.name],
        ["experiment", f"{experiment.name} ({experiment.id})"],
        ["status", run.status.name.lower() + ("" if run.active else ", deleted")],
        ["started", _when(run.start_time_ms)],
        ["took", _duration(run)],
        ["user", run.user],
        ["source", run.source_name],
        ["commit", run.git_commit],
        ["parent", run.parent_run_id or ""],
        ["files", files],
        ["refused", f"{run.refused_records:,} values, params, tags and files" if run.refused_records else ""],
        ["lost", count_of(run.lost_records, "record") if run.lost_records else ""],
    ]
    print(table([], [row for row in told if row[1]]))
    if run.params:
        print("\n" + table(["param", "value"], [[key, value] for key, value in sorted(run.params.items())]))
    if run.tags:
        print("\n" + table(["tag", "value"], [[key, value] for key, value in sorted(run.tags.items())]))
    if run.metrics:
        rows = [
            [
                each.name,
                *(f"{value:.6g}" for value in (each.last_value, each.min_value, each.max_value)),
                str(each.last_step),
                f"{each.count:,}",
            ]
            for each in run.metrics.values()
        ]
        print("\n" + table(["metric", "last", "min", "max", "step", "points"], rows))


def _files(client: Client, run_id: str) -> str:
    """They may be the affair of a server of their own, which is away: the rest is shown without."""
    try:
        found = client.list_artifacts(run_id, recursive=True)
    except PenstockError as error:
        return f"cannot be listed ({error})"
    return files_of(len(found), sum(each.size for each in found)) if found else ""


def runs_delete(args: argparse.Namespace) -> None:
    """`penstock runs delete`."""
    with Client(args.url) as client:
        for run_id in references.run_ids(client, args.runs):
            standing = _standing(client, run_id) if args.force else ""
            client.delete_run(run_id, force=args.force)
            if standing:
                print(f"penstock: without their files until it is restored: {standing}", file=sys.stderr)
            print(f"run {run_id}: deleted; `penstock runs restore {run_id}` takes that back", file=sys.stderr)


def _standing(client: Client, run_id: str) -> str:
    """The versions of models that stand on a run, with their aliases."""
    found = client.registry.search_versions(f"run_id = '{run_id}'", ["name", "version"], _VERSIONS_NAMED + 1)
    named = [
        " ".join([f"{each.name}/{each.version}", *(f"@{alias}" for alias in each.aliases)])
        for each in found
        if each.source.startswith("runs:/")
    ]
    return ", ".join([*named[:_VERSIONS_NAMED], *(["…"] if named[_VERSIONS_NAMED:] else [])])


def runs_restore(args: argparse.Namespace) -> None:
    """`penstock runs restore`."""
    with Client(args.url) as client:
        for run_id in references.run_ids(client, args.runs):
            client.restore_run(run_id)
            print(f"run {run_id}: restored", file=sys.stderr)


def metrics_plot(args: argparse.Namespace) -> int:
    """`penstock metrics plot`. Returns 1 when there is nothing to be drawn."""
    width = args.width or shutil.get_terminal_size((100, 24)).columns
    with Client(args.url) as client:
        runs = references.run_ids(client, (args.run, *args.more_runs))
        found = client.metric_series(runs, args.names, width=2 * width, start_step=args.start, end_step=args.end)
    missing = {(run, name) for run in runs for name in args.names} - {(each.run_id, each.name) for each in found}
    for run, name in sorted(missing):
        print(f"penstock: run {run} has no points of {name!r} there", file=sys.stderr)
    if found:
        print(plot(*found, width=width, height=args.height, colour=sys.stdout.isatty()))
    return 0 if found else 1


def export(args: argparse.Namespace) -> None:
    """`penstock export`."""
    kind = args.format or _format_of(args.output)
    with Client(args.url) as client:
        histories = exports.histories(client, references.run_ids(client, args.runs), args.metric)
        if kind == "parquet":
            if args.output is None:
                raise ValueError("Parquet needs a file: --output FILE.parquet")
            points = exports.write_parquet(histories, args.output)
        elif args.output is None:
            points = exports.write_csv(histories, sys.stdout)
        else:
            with open(args.output, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123  as it was typed
                points = exports.write_csv(histories, file)
    print(count_of(points, "point"), file=sys.stderr)


def _format_of(output: str | None) -> str:
    """As the file is called. Raises ValueError for what would be taken for something else."""
    ending = "" if output is None else Path(output).suffix.lower()
    if ending in (".parquet", ".pq"):
        return "parquet"
    if ending in ("", ".csv", ".txt"):
        return "csv"
    raise ValueError(f"{output}: only .csv and .parquet are written; --format says which, whatever the file is called")


def artifacts_ls(args: argparse.Namespace) -> None:
    """`penstock artifacts ls`."""
    artifacts.ls(args)


def artifacts_get(args: argparse.Namespace) -> None:
    """`penstock artifacts get`."""
    artifacts.get(args)


def artifacts_put(args: argparse.Namespace) -> None:
    """`penstock artifacts put`."""
    artifacts.put(args)


def artifacts_rm(args: argparse.Namespace) -> None:
    """`penstock artifacts rm`."""
    artifacts.rm(args)


def models(args: argparse.Namespace) -> int:
    """`penstock models …`."""
    try:
        return getattr(registry, args.act)(args) or 0
    except FailedPrecondition as error:
        raise FailedPrecondition(registry.as_typed(str(error))) from error


def sync(args: argparse.Namespace) -> int:
    """`penstock sync`."""
    return spools.sync(args)


def _when(ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _duration(run: Run) -> str:
    if run.end_time_ms is None and run.status is not RunStatus.RUNNING:
        return ""
    end_ms = time.time_ns() // 1_000_000 if run.end_time_ms is None else run.end_time_ms
    seconds = max(0, end_ms - run.start_time_ms) / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _latest(run: Run) -> str:
    shown = [f"{each.name}={each.last_value:.4g}" for each in list(run.metrics.values())[:_METRICS_SHOWN]]
    return " ".join(shown) + (" …" if len(run.metrics) > _METRICS_SHOWN else "")


def _pairs(tags: dict[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(tags.items()))


def _plain(run: Run) -> dict[str, Any]:
    return dataclasses.asdict(run) | {"status": run.status.name}


def _json(value: Any) -> str:
    """On one line. JSON has no NaN and no infinity: they are written as text, as protobuf does."""
    return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
