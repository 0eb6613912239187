"""`penstock artifacts …`: the files of runs, from a terminal."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock.artifacts import Artifact
from penstock.bars import Bar, count_of, size_of
from penstock.cli import references
from penstock.cli.tables import table
from penstock.client import Client
from penstock.paths import artifact_directory, files_below

_TICK = 0.5  # seconds


def ls(args: argparse.Namespace) -> None:
    """What is in a directory of a run, or a single file."""
    with Client(args.url) as client:
        run_id = references.run_id(client, args.run)
        found = client.list_artifacts(run_id, args.directory, recursive=args.recursive)
        if not found and args.directory:
            found = [client.stat_artifact(run_id, args.directory)]
    if args.json:
        for each in found:
            print(json.dumps(dataclasses.asdict(each), ensure_ascii=False))
    elif found:
        print(table(["size", "stored", "path"], [_row(each) for each in found], right=[0]))


def get(args: argparse.Namespace) -> None:
    """Brings a file or directory here, and prints where it is; `-` for a file itself."""
    with Client(args.url) as client:
        bring(client, references.run_id(client, args.run), args.path, args.output)


def bring(client: Client, run_id: str, path: str, output: str | None) -> None:
    """As `get`. Raises ValueError."""
    found = [client.stat_artifact(run_id, path)] if path else []
    if output == "-":
        if not found or found[0].is_directory:
            raise ValueError("only a single file can go to standard output")
        _print(client, run_id, found[0])
        return
    if not found or found[0].is_directory:
        found = client.list_artifacts(run_id, path, recursive=True)
    if not found:
        raise ValueError(f"run {run_id} has no files")
    name = artifact_directory(path).rpartition("/")[2] or run_id
    target = Path(name if output is None else output)
    with _no_empty_directories(target), _progress(len(found), sum(each.size for each in found)) as progress:
        print(client.download_artifacts(run_id, path, output, progress=progress))


def _print(client: Client, run_id: str, artifact: Artifact) -> None:
    """Nothing of it goes out before all of it is here and verified."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
        with _progress(1, artifact.size) as progress:
            file = client.download_artifacts(run_id, artifact.path, Path(directory) / "file", progress=progress)
        sys.stdout.flush()
        with file.open("rb") as source:
            shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)


@contextmanager
def _no_empty_directories(target: Path) -> Iterator[None]:
    """What is made for what does not come then goes again; what has come in part stays, to be gone on with."""
    made = [each for each in (target, *target.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        if made:
            for place in (*(Path(below) for below, _, _ in os.walk(target, topdown=False)), *made):
                with suppress(OSError):
                    place.rmdir()
        raise


def put(args: argparse.Namespace) -> None:
    """Brings a file or directory into a run, and prints the paths there."""
    source = Path(args.source)
    if not args.source or not source.exists():
        raise ValueError(f"there is no file or directory {args.source!r}")
    with Client(args.url) as client:
        run_id = references.run_id(client, args.run)
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
        deleted = client.delete_artifact(references.run_id(client, args.run), args.path, force=args.force)
    print(f"{count_of(deleted, 'file')} deleted", file=sys.stderr)


def _row(artifact: Artifact) -> list[str]:
    if artifact.is_directory:
        return ["", "", f"{artifact.path}/"]
    when = datetime.datetime.fromtimestamp(artifact.update_time_ms / 1000, datetime.UTC).astimezone()
    return [size_of(artifact.size), f"{when:%Y-%m-%d %H:%M:%S}", artifact.path]


@contextmanager
def _progress(files: int, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, for what takes longer than a second."""
    what = count_of(files, "file")
    done = 0
    lock = threading.Lock()

    with Bar(lines=True) as bar:

        def moved(count: int) -> None:
            nonlocal done
            with lock:
                done += count
                bar.show(what, done, total)

        over = threading.Event()
        # What waits for a store that is away moves nothing, and is shown, too.
        ticking = threading.Thread(target=lambda: _tick(over, lambda: moved(0)), daemon=True)
        ticking.start()
        try:
            yield moved
        finally:
            over.set()
            ticking.join()


def _tick(over: threading.Event, tell: Callable[[], None]) -> None:
    while not over.wait(_TICK):
        tell()
