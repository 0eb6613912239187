"""`penstock artifacts …`: the files of runs, from a terminal."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.artifacts import Artifact
from penstock.bars import Bar, size_of
from penstock.cli.tables import table
from penstock.client import Client
from penstock.paths import files_below
from penstock.run_ids import parse_run_id


def ls(args: argparse.Namespace) -> None:
    """What is in a directory of a run, or a single file."""
    run_id = parse_run_id(args.run)
    with Client(args.url) as client:
        found = client.list_artifacts(run_id, args.directory, recursive=args.recursive)
        if not found and args.directory:
            found = [client.stat_artifact(run_id, args.directory)]
    if args.json:
        for each in found:
            print(json.dumps(dataclasses.asdict(each), ensure_ascii=False))
    elif found:
        print(table(["size", "stored", "path"], [_row(each) for each in found]))


def get(args: argparse.Namespace) -> None:
    """Brings a file or directory here, and prints where it is."""
    run_id = parse_run_id(args.run)
    with Client(args.url) as client:
        found = [client.stat_artifact(run_id, args.path)] if args.path else []
        if not found or found[0].is_directory:
            found = client.list_artifacts(run_id, args.path, recursive=True)
        with _progress(len(found), sum(each.size for each in found)) as progress:
            print(client.download_artifacts(run_id, args.path, args.output, progress=progress))


def put(args: argparse.Namespace) -> None:
    """Brings a file or directory into a run, and prints the paths there."""
    run_id, source = parse_run_id(args.run), Path(args.source)
    if not args.source or not source.exists():
        raise ValueError(f"there is no file or directory {args.source!r}")
    with Client(args.url) as client:
        if source.is_dir():
            names = list(files_below(source))
            total = sum((source / name).stat().st_size for name in names if (source / name).exists())
            with _progress(len(names), total) as progress:
                done = client.upload_artifacts(run_id, source, args.path, progress=progress)
        else:
            path = args.path + source.name if args.path.endswith(("/", "\\")) else args.path or source.name
            with _progress(1, source.stat().st_size) as progress:
                done = [client.upload_artifact(run_id, source, path, progress=progress)]
    for each in done:
        print(each.path)


def rm(args: argparse.Namespace) -> None:
    """Deletes a file or directory."""
    with Client(args.url) as client:
        deleted = client.delete_artifact(parse_run_id(args.run), args.path)
    print(f"{deleted:,} file{'' if deleted == 1 else 's'} deleted", file=sys.stderr)


def _row(artifact: Artifact) -> list[str]:
    if artifact.is_directory:
        return ["", "", f"{artifact.path}/"]
    when = datetime.datetime.fromtimestamp(artifact.update_time_ms / 1000, datetime.UTC).astimezone()
    return [size_of(artifact.size), f"{when:%Y-%m-%d %H:%M:%S}", artifact.path]


@contextmanager
def _progress(files: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, for what takes longer than a second."""
    what = f"{files:,} file{'' if files == 1 else 's'}"
    done = 0
    lock = threading.Lock()

    with Bar(lines=True) as bar:

        def moved(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                bar.show(what, done, total)

        yield moved
