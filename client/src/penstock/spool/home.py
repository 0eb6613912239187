"""The directory of one writer, and the right to send what is in it."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.spool import places
from penstock.spool.owner import Owner


class Home:
    """Made when it is first needed; where it cannot be made, it is tried again whenever it is asked for."""

    def __init__(self, root: str | os.PathLike[str] | None, run_id: str, writer_id: bytes) -> None:
        self.path: Path | None = None
        self._root = root
        self._run_id = run_id
        self._writer_id = writer_id
        self._owner: Owner | None = None

    @classmethod
    def of_stored(cls, path: Path, owner: Owner, run_id: str, writer_id: bytes) -> Home:
        """That of a process which is gone."""
        self = cls(path.parent, run_id, writer_id)
        self.path, self._owner = path, owner
        return self

    def make(self) -> Path:
        """The directory. Raises OSError."""
        path = places.place_of(places.root(self._root), self._run_id, self._writer_id)
        path.mkdir(mode=0o700, exist_ok=True)
        if self._owner is not None and not (path / f"epoch-{self._owner.epoch}").exists():
            self._owner.release()  # somebody has removed it all
            self._owner = None
        if self._owner is None:
            self._owner = Owner.claim(path)
            if self._owner is None:
                raise OSError(f"another process writes to {path}")
        self.path = path
        return path

    @property
    def epoch(self) -> int:
        """Under which it is sent."""
        return self._owner.epoch if self._owner is not None else 1

    def reclaim(self, at_least: int) -> bool:
        """Take the writer back, with an epoch above all others, from a process that is gone. False: it is not."""
        try:
            return self._owner is not None and self._owner.reclaim(at_least)
        except OSError:
            return False

    @property
    def owned(self) -> bool:
        """Whether there is a directory, which another process could take over."""
        return self._owner is not None

    def sent(self, acked: int) -> None:
        """Everything in it is committed. Raises OSError."""
        if self.path is not None:
            places.mark_sent(self.path, acked)

    def release(self) -> None:
        """Leave it to others."""
        if self._owner is not None:
            self._owner.release()
