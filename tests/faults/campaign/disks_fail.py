"""Campaigns in which the disk under the spool is full, is taken away, or never was there."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from campaign import journal as words
from campaign.proxy import Proxy
from campaign.stage import Stage

_DISK = 8 << 20
_MEMORY = 2 << 20
_FILE = 256 << 10  # a new one is begun each second


def full(stage: Stage) -> None:
    """A small disk and a server that is away: what does not fit is refused, counted, and nothing else is missing."""
    proxy = stage.proxy(stage.server())
    with _small(stage.spool) as file_bytes:
        stage.begin(proxy.address, buffer_bytes=_MEMORY, file_bytes=file_bytes, every=0)
        for _ in stage.rounds(pause=0.3):
            stage.strike("disk full")
            _fill(stage, proxy)
            proxy.clear()
            stage.recover()
        stage.finish()
        stage.sync()
    assert all(life.journal.refused() for life in stage.troupe.lives), "somebody found room for everything"


def bounded(stage: Stage) -> None:
    """A spool that may not grow, and a server that is away: the same, by our own limit."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address, buffer_bytes=_MEMORY, spool_bytes=_DISK // 4, every=0)
    for _ in stage.rounds(pause=0.3):
        stage.strike("spool full")
        _fill(stage, proxy)
        proxy.clear()
        stage.recover()
    stage.finish()
    stage.sync()


def removed(stage: Stage) -> None:
    """Somebody removes all spools, while the server is there or not."""
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    for number in stage.rounds(pause=1.5):
        stage.strike("spools removed", "server away" if number % 2 else "")
        if number % 2:
            proxy.refuse()
            proxy.cut(reset=True)
            time.sleep(0.1)
        shutil.rmtree(stage.spool, ignore_errors=True)
        time.sleep(stage.chance.uniform(0.0, 1.5))
        proxy.clear()
    stage.finish()


def absent(stage: Stage) -> None:
    """The spool's directory can never be made. Connections are cut meanwhile."""
    stage.spool.write_text("a file where a directory should be")
    proxy = stage.proxy(stage.server())
    stage.begin(proxy.address)
    for _ in stage.rounds(pause=0.3):
        stage.strike("no spool directory, connections cut")
        proxy.cut(reset=True)
    stage.finish()


def _fill(stage: Stage, proxy: Proxy) -> None:
    """The server is away until each writer has been refused something."""
    proxy.refuse()
    proxy.cut(reset=True)
    for life in stage.troupe.streaming:
        before = life.journal.words[words.REFUSED]
        life.wait_until(lambda it, before=before: it.journal.words[words.REFUSED] > before, "refused call")  # type: ignore[misc]


@contextmanager
def _small(directory: Path) -> Iterator[int]:
    """A file system that is soon full; or where we may not have one, how long files may be."""
    directory.mkdir()
    if os.geteuid() == 0 and shutil.which("mount"):
        made = ("mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0700", "none", str(directory))
        if subprocess.run(made, capture_output=True, check=False).returncode == 0:
            try:
                yield 0
            finally:
                subprocess.run(("umount", "--lazy", str(directory)), check=True)
            return
    yield _FILE
