"""Files below a directory that no link leads out of. Blocking, and for one who knows what it may raise: OSError.

A path is walked name by name with descriptors, and no symbolic link is followed on the way, whoever planted it and
when; the directory itself may be one.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

# How often a directory may vanish under a writer, removed as empty by who deletes, before it is no race any more.
_RACES = 100
_KEPT = 10_000

_FILLED = (errno.ENOTEMPTY, errno.EEXIST)
# Another has removed it, or something else has taken its place.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class RootGoneError(OSError):
    """The directory that all is below is not there."""


def names(path: str) -> list[str]:
    """A path's names. It is a bug when one of them leads elsewhere."""
    found = path.split("/")
    if {"", ".", ".."} & set(found) or "\0" in path:
        raise ValueError(f"{path!r} is no path below a root")
    return found


class Kept:
    """Directories of which this process knows that they are on the disk to stay, by device and inode.

    A file in a directory takes two calls of fsync, and not two more for each directory above it. Of a directory that
    another process removes, and whose inode a new one gets at once, nothing is heard.
    """

    def __init__(self) -> None:
        self._found: set[tuple[int, int]] = set()
        self._removals = 0
        self._lock = threading.Lock()

    def keep(self, directory: int, parent: int) -> None:
        """Puts the directory's name to the disk, also when it was there: who has made it may not have come to this."""
        found = os.fstat(directory)
        with self._lock:
            if (found.st_dev, found.st_ino) in self._found:
                return
            before = self._removals
        os.fsync(parent)
        with self._lock:
            if self._removals == before:  # else it may have been this one
                if len(self._found) >= _KEPT:
                    self._found.clear()
                self._found.add((found.st_dev, found.st_ino))

    def remove(self, name: str, parent: int) -> None:
        """Removes a directory, and knows nothing of its number when that can be another's. Raises OSError."""
        with self._lock:
            os.rmdir(name, dir_fd=parent)
            self._removals += 1
            self._found.clear()


@contextmanager
def directory(root: str, path: Sequence[str], *, make: Kept | None = None) -> Iterator[int]:
    """A descriptor of a directory. With `make`, it and those above are made, and are on the disk to stay."""
    try:
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise RootGoneError(*error.args) from None
    try:
        for name in path:
            try:
                below = _below(here, name)
            except FileNotFoundError:
                if make is None:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=here)
                below = _below(here, name)
            above, here = here, below
            try:
                if make is not None:
                    make.keep(below, above)
            finally:
                os.close(above)
        yield here
    finally:
        os.close(here)


def _below(parent: int, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def open_file(parent: int, name: str, flags: int) -> int:
    """A descriptor of a file in a directory. What is there and is no file raises ELOOP or ENOTDIR."""
    # Not to wait for who opens the other end, should it be a pipe.
    found = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=parent)
    if stat.S_ISREG(os.fstat(found).st_mode):
        return found
    os.close(found)
    raise OSError(errno.ENOTDIR, "not a file", name)


def move(old: int, names: Mapping[str, str], root: str, target: Sequence[str], kept: Kept) -> dict[str, OSError]:
    """Renames files of the directory `old` into another, which is made; on the disk to stay. What is there is replaced.

    Returns what has failed, by the old name: FileNotFoundError means that this is not there.
    """
    left, failed = dict(names), dict[str, OSError]()
    for _ in range(_RACES):
        try:
            with directory(root, target, make=kept) as new:
                _rename(old, left, new, failed)
                os.fsync(new)
                return failed
        except FileNotFoundError:
            continue  # a directory of the target was removed as empty
        except OSError as error:
            return dict.fromkeys(names, error)
    return failed | dict.fromkeys(left, OSError(errno.EAGAIN, "directories vanish as fast as they are made"))


def _rename(old: int, left: dict[str, str], new: int, failed: dict[str, OSError]) -> None:
    """Takes from `left` what is done, or has failed. Raises FileNotFoundError when `new` has vanished."""
    for name, becomes in list(left.items()):
        try:
            os.rename(name, becomes, src_dir_fd=old, dst_dir_fd=new)
        except FileNotFoundError as error:
            if _is_there(old, name):
                raise
            failed[name] = error
        except OSError as error:
            failed[name] = error
        del left[name]


def _is_there(parent: int, name: str) -> bool:
    with suppress(FileNotFoundError):
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        return True
    return False


def remove(root: str, path: Sequence[str], kept: Kept) -> None:
    """Removes a file and the directories that are empty then; on the disk to stay. Fine when it is not there."""
    for depth in range(len(path), 0, -1):
        try:
            with directory(root, path[: depth - 1]) as parent:
                if depth < len(path):
                    kept.remove(path[depth - 1], parent)
                    continue
                with suppress(FileNotFoundError):
                    os.unlink(path[-1], dir_fd=parent)
                os.fsync(parent)
        except OSError as error:
            if error.errno in _FILLED:
                return
            if error.errno not in _MISSING or isinstance(error, RootGoneError):
                raise
