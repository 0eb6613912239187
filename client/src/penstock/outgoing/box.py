"""The directory in which one process keeps the files that a run has logged, until the server has them.

    <root>/artifacts/<run id>.<random>/     a box: `box.json` says whose run it is, and `epoch-<N>` who owns it
        000001.json                         an entry: where in the run it belongs, how large it is
        000001.data                         its bytes; there is none where the entry names a file elsewhere
        000002.refused                      an entry that the server refused, with its reason; kept for a day

An entry counts from the moment that its .json bears its name, which comes after its bytes. A box is owned as a spool
is (`penstock.spool.owner`): for as long as its process lives.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from penstock.address import Address
from penstock.outgoing import snapshot
from penstock.outgoing.tally import Tally
from penstock.spool import owner, places
from penstock.spool.owner import Owner

ARTIFACTS = "artifacts"
_NAME = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{16}")
_ENTRY = re.compile(r"([0-9]{6,})\.json")
_OURS = re.compile(r"[0-9]{6,}\.(json|data|refused|draft)|box\.(json|draft)")
_HEAD = "box.json"


@dataclass(slots=True, eq=False)
class Entry:
    """A file that is to be sent to `path`. Its bytes are in `file`, or in `data`."""

    number: int  # in the order in which they were logged
    path: str
    size: int
    file: Path | None = None
    data: bytes = b""
    changed_ns: int | None = None  # of a file that is not ours: when it was last changed; it must stay so
    noted: bool = False  # in a box, which others send when this process is gone

    @property
    def ours(self) -> bool:
        """Whether it is as it was logged, whatever others do."""
        return self.changed_ns is None

    def problem(self) -> str:
        """Why its bytes are not those that were logged; empty when they are."""
        if self.file is None:
            return ""
        try:
            status = self.file.stat()
        except OSError as error:
            return f"{self.file} cannot be read any more ({error.strerror or error})"
        if status.st_size != self.size or self.changed_ns not in (None, status.st_mtime_ns):
            return f"{self.file} has been changed since it was logged"
        return ""


class Box:
    """A box of this process's own, made when the first file comes; or, by `claim`, one that is left."""

    path: Path | None = None

    def __init__(self, root: str | os.PathLike[str] | None, run_id: str, address: Address, *, durable: bool) -> None:
        self.run_id = run_id
        self.address = address
        self._root = root
        self._durable = durable
        self._owner: Owner | None = None
        self._numbers = itertools.count(1)
        self._bytes = Tally()

    @classmethod
    def claim(cls, directory: Path) -> Box | None:
        """One that a process has left. None: somebody alive has it. Raises OSError; ValueError for a damaged one."""
        claimed = Owner.claim(directory)
        if claimed is None:
            return None
        try:
            run_id, address = head_of(directory)
        except BaseException:
            claimed.release()
            raise
        self = cls(directory.parent.parent, run_id, address, durable=False)
        self.path, self._owner = directory, claimed
        return self

    @property
    def held(self) -> int:
        """How many bytes of the disk its entries take."""
        return self._bytes.sum

    # Putting in. Each raises OSError, and then there is no entry.

    def copy(self, source: Path, path: str) -> Entry:
        """An entry with a snapshot of a file."""
        number, place = next(self._numbers), self._made()
        data = place / f"{number:06}.data"
        entry = Entry(number, path, snapshot.take(source, data, durable=self._durable), data)
        return self._note(entry)

    def keep(self, data: bytes, path: str) -> Entry:
        """An entry with these bytes."""
        number, place = next(self._numbers), self._made()
        file = place / f"{number:06}.data"
        snapshot.write(data, file, durable=self._durable)
        return self._note(Entry(number, path, len(data), file))

    def refer(self, entry: Entry) -> Entry:
        """Make a note of an entry whose bytes are in a file that is not ours."""
        self._made()
        return self._note(entry)

    def number(self) -> int:
        """Of an entry that is made elsewhere."""
        return next(self._numbers)

    def _note(self, entry: Entry) -> Entry:
        told: dict[str, Any] = {"path": entry.path, "size": entry.size, "at_ms": time.time_ns() // 1_000_000}
        if not entry.ours:
            told |= {"source": str(entry.file), "changed_ns": entry.changed_ns}
        place = self._made()
        try:
            self._say(place / f"{entry.number:06}.json", told)
        except BaseException:
            if entry.ours and entry.file is not None:
                with suppress(OSError):
                    entry.file.unlink()
            raise
        entry.noted = True
        if entry.ours:
            self._bytes.add(entry.size)
        return entry

    def _say(self, file: Path, told: dict[str, Any]) -> None:
        draft = file.with_suffix(".draft")
        with suppress(OSError):
            draft.unlink()
        snapshot.write(json.dumps(told).encode("utf-8", "surrogatepass"), draft, durable=self._durable)
        draft.replace(file)

    def _made(self) -> Path:
        """The directory, made and owned. Raises OSError."""
        if self.path is not None:
            return self.path
        above = places.root(self._root) / ARTIFACTS
        above.mkdir(mode=0o700, exist_ok=True)
        place = above / f"{uuid.UUID(self.run_id).hex}.{os.urandom(8).hex()}"
        place.mkdir(mode=0o700)
        home: Path | None = None
        claimed = None
        try:
            if (claimed := Owner.claim(place)) is None:
                raise OSError(f"another process writes to {place}")
            self._say(place / _HEAD, {"run_id": self.run_id, **asdict(self.address)})
            # One step: another thread, or a signal handler, may have made one meanwhile.
            home = self.__dict__.setdefault("path", place)
            if home is place:
                self._owner = claimed
            return home
        finally:
            if home is not place:
                with suppress(OSError):
                    remove(place)
                if claimed is not None:
                    claimed.release()

    # Taking out. None of these raises.

    def drop(self, entry: Entry) -> None:
        """The server has it, or a later one in its place."""
        if self.path is not None:
            with suppress(OSError):
                (self.path / f"{entry.number:06}.json").unlink(missing_ok=True)
        self._unlink(entry)

    def refuse(self, entry: Entry, reason: str) -> Path | None:
        """The server refused it. Returns where its bytes are for another day, if it is the only copy."""
        if self.path is None or not entry.ours or entry.file is None:
            self.drop(entry)
            return None
        try:
            told = {"path": entry.path, "size": entry.size, "reason": reason, "at_ms": time.time_ns() // 1_000_000}
            self._say(entry.file.with_suffix(".refused"), told)
            entry.file.with_suffix(".json").unlink()
        except OSError:
            self.drop(entry)
            return None
        return entry.file

    def set_aside(self, name: str) -> None:
        """An entry that is damaged: it is told once, and kept for a day. Not one that only cannot be read just now."""
        if self.path is not None:
            with suppress(OSError):
                file = self.path / name
                file.read_bytes()
                file.replace(file.with_suffix(".refused"))

    def _unlink(self, entry: Entry) -> None:
        if entry.ours and entry.file is not None:
            with suppress(OSError):
                entry.file.unlink()
            self._bytes.add(-entry.size)

    def release(self) -> None:
        """Leave it to others; an empty one is removed."""
        owned, self._owner = self._owner, None
        if owned is None or self.path is None:
            return
        try:
            with suppress(OSError):
                if owned.newest() and not _names(self.path, "json", "refused"):
                    remove(self.path)
        finally:
            owned.release()


# Boxes on the disk, whoever made them.


def found(root: Path) -> list[Path]:
    """All boxes in a root of spools, the oldest first."""
    try:
        with os.scandir(root / ARTIFACTS) as entries:
            boxes = [each for each in entries if _NAME.fullmatch(each.name) and each.is_dir(follow_symlinks=False)]
            return [root / ARTIFACTS / each.name for each in sorted(boxes, key=lambda each: _changed(Path(each.path)))]
    except OSError:
        return []


def run_of(directory: Path) -> str:
    """The id of the run whose box it is, by its name."""
    return directory.name.partition(".")[0]


def head_of(directory: Path) -> tuple[str, Address]:
    """Of which run a box is, and for which server. Raises OSError, and ValueError where it is damaged."""
    told = json.loads((directory / _HEAD).read_bytes())
    try:
        address = Address(str(told["target"]), tls=bool(told["tls"]), workspace=str(told["workspace"]))
        return str(told["run_id"]), address
    except (KeyError, TypeError) as error:
        raise ValueError(f"{directory / _HEAD} is damaged") from error


def entries(directory: Path) -> tuple[list[Entry], list[str]]:
    """What is in a box to be sent, in its order; and the names of entries that cannot be read. Raises OSError."""
    found, damaged = [], []
    for name in _names(directory, "json"):
        if (entry := _entry(directory, name)) is not None:
            found.append(entry)
        else:
            damaged.append(name)
    return found, damaged


def is_empty(directory: Path) -> bool:
    """Whether there is nothing to be sent in it. Raises OSError."""
    return not _names(directory, "json")


def sweep(root: Path, *, grace_seconds: float, now: float) -> None:
    """Remove boxes with nothing to be sent whose processes are gone; those with something refused after the grace."""
    for directory in found(root):
        with suppress(OSError):
            if not is_empty(directory) or abs(now - _changed(directory)) < grace_seconds:
                continue
            if (claimed := Owner.claim(directory)) is not None:
                try:
                    if is_empty(directory):
                        remove(directory)
                finally:
                    claimed.release()


def remove(directory: Path) -> None:
    """Remove a box with what is in it by a name of ours. Raises OSError."""
    for name in sorted(os.listdir(directory), key=owner.is_ours):  # noqa: PTH208  who owns it goes last
        if _OURS.fullmatch(name) or owner.is_ours(name):
            (directory / name).unlink(missing_ok=True)
    directory.rmdir()


def _names(directory: Path, *endings: str) -> list[str]:
    names = (name for name in os.listdir(directory) if _OURS.fullmatch(name) and name != _HEAD)  # noqa: PTH208
    found = (name for name in names if name.endswith(tuple(f".{each}" for each in endings)))
    return sorted(found, key=lambda name: (len(name), name))


def _entry(directory: Path, name: str) -> Entry | None:
    number = _ENTRY.fullmatch(name)
    if number is None:
        return None
    try:
        told = json.loads((directory / name).read_bytes())
        source = told.get("source")
        file = directory / f"{number[1]}.data" if source is None else Path(source)
        changed_ns = told.get("changed_ns")
        return Entry(int(number[1]), str(told["path"]), int(told["size"]), file, changed_ns=changed_ns, noted=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _changed(directory: Path) -> float:
    try:
        return directory.stat().st_mtime
    except OSError:
        return 0.0


def orphans(root: Path) -> Iterator[Path]:
    """Boxes with something to be sent that nobody alive owns, the oldest first."""
    for directory in found(root):
        with suppress(OSError):  # removed meanwhile, or not for us to read
            if not is_empty(directory) and owner.orphaned(directory):
                yield directory
