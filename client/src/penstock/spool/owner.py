"""Who may send a spool, and under which epoch.

A spool has a file `epoch-<N>` for each process that ever opened it for sending; the newest is whose it is, for as
long as that process lives. The process holds a lock on its own file: the kernel lets go of it however the process
ends, a forked child does not inherit it, and other containers and other clients of an NFSv4 server see it.
The file is locked before it gets its name, and a name is given once (`link`), so taking over is one atomic step
and no lock file is ever found stale and deleted.

A POSIX lock does not hold against its own process, and is gone when *any* descriptor of the file is closed. So
this process keeps a list of what it holds, by the file's identity, and never opens one of those.
"""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_EPOCH = re.compile(r"epoch-([1-9][0-9]*)")
_MOST = 2**32 - 1  # as Hello carries it
_DRAFT = ".claim-"
_LOCK_TRIES = 100
_LOCKED_BYTE = 1 << 30  # far from the text: elsewhere than in POSIX a locked byte cannot be read

_NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL))
_NO_LINKS = frozenset((errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))

_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Holder:
    """What an epoch file tells of the process that made it."""

    host: str
    boot: str
    pid: int
    started: str
    locked: bool  # False: the file system has no locks, so what stands here decides

    @property
    def here(self) -> bool:
        """Whether it is, or was, a process of this machine: a container made anew has the boot in common."""
        return self.host == socket.gethostname() or (self.boot != "" and self.boot == _boot())

    @property
    def seems_alive(self) -> bool:
        """As far as can be told without a lock. Of another machine's process nothing can, so it is."""
        if self.host != socket.gethostname() or sys.platform == "win32":
            return True
        if self.boot != _boot():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # somebody else's, but there it is
        return self.started == _started(self.pid)


class Owner:
    """This process's right to send a spool. `epoch` is what it says in Hello."""

    def __init__(self, directory: Path, epoch: int, descriptor: int) -> None:
        self.epoch = epoch
        self._directory = directory
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def claim(cls, directory: Path, *, force: bool = False) -> Owner | None:
        """Own the spool. None: a living process has it, or was quicker. Raises OSError.

        With `force` it is taken from a living process too, whose stream will be fenced. That process may still be
        writing into it, so for all others it has the spool for as long as it lives.
        """
        with _mutex:
            epochs = list(_epochs(directory))
            if not force and any(_alive(_file(directory, epoch)) for epoch in epochs):
                return None
            epoch = max(epochs, default=0) + 1
            descriptor = _take(directory, epoch)
            return None if descriptor is None else cls(directory, epoch, descriptor)

    def newest(self) -> bool:
        """Whether nobody has taken over. A directory that cannot be read is nobody's, so then too."""
        if not self._mine:
            return False
        try:
            return max(_epochs(self._directory), default=0) <= self.epoch
        except OSError:
            return True

    def reclaim(self, at_least: int = 0) -> bool:
        """Take the spool back, with an epoch above all others and above `at_least`. Raises OSError.

        Only from one that is gone: False when a living process has it, or was quicker.
        """
        with _mutex:
            if not self._mine:
                return False
            newest = max(_epochs(self._directory), default=0)
            if newest > self.epoch and _alive(_file(self._directory, newest)):
                return False
            epoch = max(newest, self.epoch, at_least) + 1
            descriptor = _take(self._directory, epoch)
            if descriptor is None:
                return False
            before, self._descriptor, self.epoch = self._descriptor, descriptor, epoch
            _let_go(before)
            return True

    def release(self) -> None:
        """Leave the spool to others. Does nothing the second time, nor in a forked child, which never had it."""
        with _mutex:
            if self._mine:
                descriptor, self._descriptor = self._descriptor, -1
                _let_go(descriptor)

    @property
    def _mine(self) -> bool:
        return self._descriptor >= 0 and self._pid == os.getpid()


def orphaned(directory: Path) -> bool:
    """Whether nobody alive owns the spool, or owned it before it was taken over. Raises OSError."""
    with _mutex:
        return not any(_alive(_file(directory, epoch)) for epoch in _epochs(directory))


def contested(directory: Path) -> bool:
    """Whether more than one process that lives has owned it: then one may still write into what another has sent."""
    with _mutex:
        return sum(_alive(_file(directory, epoch)) for epoch in _epochs(directory)) > 1


def holder(directory: Path) -> Holder | None:
    """Who last owned the spool, alive or not. None: nobody, or it does not say. Raises OSError."""
    with _mutex:
        newest = max(_epochs(directory), default=0)
        if not newest:
            return None
        with _opened(_file(directory, newest)) as descriptor:
            return _myself(locked=True) if descriptor is None else _read(descriptor)


def is_ours(name: str) -> bool:
    """Whether a file of this name in a spool is of this module's making."""
    return name.startswith(_DRAFT) or _EPOCH.fullmatch(name) is not None


# What this process holds: descriptors by the identity of their files, which are not reused while they are open.
_held: dict[_Identity, int] = {}
_mutex = threading.RLock()


def _in_child() -> None:
    """The locks are the parent's. Closing its descriptors here does not touch them."""
    global _mutex  # noqa: PLW0603  whoever held it is not here
    _mutex = threading.RLock()
    while _held:
        _, descriptor = _held.popitem()
        with suppress(OSError):
            os.close(descriptor)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _epochs(directory: Path) -> Iterator[int]:
    for name in os.listdir(directory):  # noqa: PTH208  names are all that is wanted
        if told := _EPOCH.fullmatch(name):
            yield int(told[1])


def _file(directory: Path, epoch: int) -> Path:
    return directory / f"epoch-{epoch}"


def _take(directory: Path, epoch: int) -> int | None:
    """Make the epoch's file, locked from its first moment, and hold it. None: somebody was quicker."""
    if epoch > _MOST:
        raise OSError(errno.EOVERFLOW, "this spool has been taken over more often than can be counted", str(directory))
    if sys.platform == "win32":  # a file that is open cannot lose its first name
        return _take_plainly(directory, epoch)
    draft = directory / f"{_DRAFT}{os.getpid()}-{os.urandom(6).hex()}"
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    _held[_identity(descriptor)] = descriptor
    try:
        _sign(descriptor)
        os.link(draft, _file(directory, epoch))
    except FileExistsError:
        if os.fstat(descriptor).st_nlink < 2:  # NFS may have linked it, lost its answer, and asked again
            _let_go(descriptor)
            return None
    except BaseException as error:
        _let_go(descriptor)
        if isinstance(error, OSError) and error.errno in _NO_LINKS:
            return _take_plainly(directory, epoch)
        raise
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    return descriptor


def _take_plainly(directory: Path, epoch: int) -> int | None:
    """Where there are no links: between its making and its lock the file looks as if left behind."""
    try:
        descriptor = os.open(_file(directory, epoch), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    _held[_identity(descriptor)] = descriptor
    try:
        _sign(descriptor)
        if max(_epochs(directory)) == epoch:
            return descriptor
    except BaseException:
        _let_go(descriptor)
        raise
    _let_go(descriptor)
    return None


def _sign(descriptor: int) -> None:
    """Lock the file, and write into it whose it is."""
    locked = _lock(descriptor, exclusive=True)
    for _ in range(_LOCK_TRIES):
        if locked is not False:
            break
        time.sleep(0.01)  # somebody looks whether it is free
        locked = _lock(descriptor, exclusive=True)
    text = json.dumps(asdict(_myself(locked=bool(locked))))
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        # A disk that is full of spools must not keep them from being sent: the lock says enough.
        if error.errno not in NO_ROOM or not locked:
            raise


def _let_go(descriptor: int) -> None:
    _held.pop(_identity(descriptor), None)
    with suppress(OSError):
        os.close(descriptor)


def _alive(file: Path) -> bool:
    try:
        with _opened(file) as descriptor:
            if descriptor is None:
                return True
            told = _read(descriptor)
            free = _lock(descriptor, exclusive=False)
    except FileNotFoundError:  # swept away meanwhile
        return False
    if free is None or (told is not None and not told.locked):
        return told is not None and told.seems_alive
    return not free


@contextmanager
def _opened(file: Path) -> Iterator[int | None]:
    """A descriptor of somebody else's file; None when it is ours, which must not be opened."""
    status = file.stat()
    if (status.st_dev, status.st_ino) in _held:
        yield None
        return
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool) -> bool | None:
    """Whether the lock was free, and is had now. None: there are no locks here.

    Whoever only looks shares it, so that those who look do not take each other for owners.
    """
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.lockf(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _read(descriptor: int) -> Holder | None:
    try:
        told = json.loads(os.read(descriptor, 4096))
        return Holder(
            host=str(told["host"]),
            boot=str(told["boot"]),
            pid=int(told["pid"]),
            started=str(told["started"]),
            locked=bool(told["locked"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _identity(descriptor: int) -> _Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _myself(*, locked: bool) -> Holder:
    return Holder(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()), locked)


def _boot() -> str:
    """Names the time since the machine was started; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _started(pid: int) -> str:
    """When a process began, in the system's ticks: tells it from a later one of the same number. Empty: not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""
