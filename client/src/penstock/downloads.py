"""From a run to this machine: whole directories, large files by several ranges at once, each verified by its digest."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from penstock import direct
from penstock.artifacts import Artifact, list_artifacts, stat_artifact
from penstock.chunks import chunk_in
from penstock.effort import PATIENCE, Effort, Progress
from penstock.errors import Changed, FailedPrecondition, PenstockError, ServerError, TransferFailed, Unavailable
from penstock.parallel import in_parallel, kept
from penstock.partial import Partial, name_for
from penstock.paths import artifact_directory, artifact_path, below
from penstock.v1 import artifacts_pb2 as pb
from penstock.wire import CHUNK, Watched, Wire

FILES = 8  # at once, of those that are small
RANGES = 4  # at once, of a large one straight from the store
STREAMS = 2  # … and through the server, where more only take turns, or of a file: one is copied, one hashed
SMALL = 8 << 20  # bytes: what is smaller comes in one go, and is begun anew when it breaks off
RANGE_BYTES = 32 << 20

_DAMAGED = 3  # times, until it is believed that it is so in the store
_COPIED = 8 << 20  # at once, between two looks at who wants it

_Read = Callable[[int, int], Generator[bytes | memoryview, None, None]]


def download_artifacts(
    wire: Wire,
    run_id: str,
    path: str | os.PathLike[str] = "",
    dst: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    patience: float | None = PATIENCE,
) -> Path:
    """Bring a file of a run, or a directory with all in it, to this machine. Returns where it is.

    Each file is verified by its SHA-256, and appears as a whole, in the place of what was there. One that is there
    already and the same is left as it is; what came of a large one before it broke off does not come again.

    Args:
        run_id: which run.
        path: a file or a directory of it. Empty: all.
        dst: of a file, the file it becomes, or a directory that there is, or that ends in `/`, for it to lie in. Of a
            directory, the directory that it becomes. None: what it is called, in the current directory.
        progress: called with the bytes done since its last call, from any thread; with a negative number when some
            have to come again.
        stop: once it is set, this ends with `errors.Stopped`.
        patience: how many seconds nothing may advance before it gives up; None: it never does.

    Raises:
        errors.NotFound: there is no such run, file or directory.
        errors.TransferFailed: some files of a directory did not come, or cannot be written; all others are there.
        errors.Retryable: the server or its store were away for too long. Ask again, and it goes on where it was.
        OSError: it cannot be written.
    """
    where = artifact_directory(path)
    effort = Effort(patience, progress, stop)
    found = effort.persist(lambda: wire.carry(stat_artifact(run_id, where))) if where else None
    if found is not None and not found.is_directory:
        target = _place_of_file(where, dst)
        _Download(wire, run_id, found, target, effort).work()
        return target
    root = Path(dst) if dst is not None else Path(where.rpartition("/")[2] or run_id)
    _download_all(wire, run_id, where, root, effort)
    return root


def read_artifact(
    wire: Wire,
    run_id: str,
    path: str | os.PathLike[str],
    *,
    stop: threading.Event | None = None,
    patience: float | None = PATIENCE,
) -> bytes:
    """The bytes of a small artifact: they are all held in memory. `stop` and `patience` are those of
    `download_artifacts`. Raises NotFound, Retryable.
    """
    message = pb.DownloadArtifactRequest(run_id=run_id, path=artifact_path(path))
    effort = Effort(patience, None, stop)

    def read() -> bytes:
        with Watched(wire, lambda: effort.stopped, lambda _: wire.receive("DownloadArtifact", message)) as stream:
            answers = iter(stream)
            artifact = pb.DownloadArtifactResponse.FromString(next(answers, b"")).artifact
            data = b"".join(_bytes_of(answers))
        if hashlib.sha256(data).digest() != artifact.sha256:
            raise Unavailable(f"artifact {artifact.path!r} arrived damaged; ask again")
        return data

    return effort.persist(read)


def _place_of_file(path: str, dst: str | os.PathLike[str] | None) -> Path:
    name = path.rpartition("/")[2]
    if dst is None:
        return below(Path(), name)
    if Path(dst).is_dir() or os.fspath(dst).endswith(("/", os.sep)):
        return below(Path(dst), name)
    return Path(dst)


def _download_all(wire: Wire, run_id: str, directory: str, root: Path, effort: Effort) -> None:
    found = effort.persist(lambda: wire.carry(list_artifacts(run_id, directory, recursive=True)))
    root.mkdir(parents=True, exist_ok=True)
    prefix = f"{directory}/" if directory else ""
    failures: dict[str, Exception] = {}

    def one(artifact: Artifact, other: Artifact | None = None) -> None:
        try:
            if not artifact.path.startswith(prefix):
                raise ServerError(f"the server names {artifact.path!r} as a file below {directory!r}")
            target = below(root, artifact.path.removeprefix(prefix))
            if other is not None and _is_one(target, below(root, other.path.removeprefix(prefix))):
                raise ValueError(f"this machine takes its name for that of {other.path!r}, which lies there")
            _Download(wire, run_id, artifact, target, effort).work()
        except (PenstockError, OSError, ValueError) as error:
            failures[artifact.path] = kept(error)

    alike: dict[str, list[Artifact]] = {}
    for artifact in found:
        alike.setdefault(unicodedata.normalize("NFC", artifact.path).casefold(), []).append(artifact)
    small = [artifact for artifact, *_ in alike.values() if artifact.size <= SMALL]
    in_parallel(one, small, min(FILES, len(small)), effort)
    for artifact, *_ in alike.values():
        if artifact.size > SMALL:  # which has threads of its own
            one(artifact)
    for artifact, *others in alike.values():  # which are files of their own on this machine, or are not
        for other in others:
            one(other, artifact)
    if failures:
        raise TransferFailed(failures, len(found))


def _is_one(path: Path, other: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), other.lstat())
    except OSError:
        return False  # one of them is not there


class _Download:
    """One file on its way."""

    def __init__(self, wire: Wire, run_id: str, artifact: Artifact, target: Path, effort: Effort) -> None:
        self._wire = wire
        self._run_id = run_id
        self._artifact = artifact
        self._target = target
        self._effort = effort
        self._url = ""  # where the store gives it, for as long as that is good
        self._http = direct.Http()
        self._damaged = 0  # times
        self._counted = 0  # bytes told as progress
        self._lock = threading.Lock()

    def work(self) -> None:
        """Try until it is there."""
        self._effort.persist(self._try)
        self._effort.advanced()

    def _try(self) -> None:
        self._count(-self._counted)
        try:
            if not self._there():
                if self._target.is_dir() and not self._target.is_symlink():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self._target))
                self._target.parent.mkdir(parents=True, exist_ok=True)
                if self._artifact.size <= SMALL:
                    self._whole()
                else:
                    self._in_ranges()
        except Changed:
            # Of another that has taken its place meanwhile, nothing is here yet.
            self._artifact = self._wire.carry(stat_artifact(self._run_id, self._artifact.path))
            raise
        finally:
            self._http.close()
        self._count(self._artifact.size - self._counted)

    def _count(self, step: int) -> None:
        with self._lock:
            self._counted += step
        self._effort.count(step)

    def _there(self) -> bool:
        """Whether it is in its place already."""
        try:
            found = self._target.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != self._artifact.size:
                return False
            digest = hashlib.sha256()
            with self._target.open("rb", buffering=0) as file:
                while data := file.read(CHUNK):
                    digest.update(data)
                    self._effort.check()
        except OSError:
            return False
        return digest.hexdigest() == self._artifact.sha256

    def _whole(self) -> None:
        digest = hashlib.sha256()
        path = name_for(self._target, f"{os.urandom(8).hex()}-")
        try:
            with path.open("xb", buffering=0) as file, closing(self._from_server(0, 0)) as chunks:
                for data in chunks:
                    digest.update(data)
                    file.write(data)
                    self._count(len(data))
            if digest.hexdigest() != self._artifact.sha256:
                raise self._damage()
            path.replace(self._target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _in_ranges(self) -> None:
        artifact = self._artifact
        share = -(-artifact.size // RANGES)
        range_bytes = max(SMALL, min(RANGE_BYTES, -(-share // CHUNK) * CHUNK))
        read = self._reader()
        with Partial(self._target, artifact.size, bytes.fromhex(artifact.sha256), range_bytes) as partial:
            self._count(sum(partial.done))
            left = [number for number, done in enumerate(partial.done) if done < partial.length(number)]
            threads = min(RANGES if read == self._from_store else STREAMS, len(left))
            in_parallel(lambda number: self._range(partial, read, number), left, threads, self._effort)
            if partial.digest().hex() != artifact.sha256:
                partial.discard()
                raise self._damage()
            partial.finish()

    def _range(self, partial: Partial, read: _Read | Path, number: int) -> None:
        def go() -> None:
            left = partial.length(number) - partial.done[number]
            if not left:  # only the end of the stream was lost
                return
            fill = (
                _copied(partial, read, number, left)
                if isinstance(read, Path)
                else self._written(partial, read, number, left)
            )
            with closing(fill) as steps:
                for step in steps:
                    left -= step
                    self._count(step)
                    self._effort.advanced()
                    self._effort.check()
            if left:
                raise Unavailable(f"artifact {self._artifact.path!r} ended before its end; ask again")

        self._effort.persist(go, over=Changed)
        partial.hash_on()

    def _written(self, partial: Partial, read: _Read, number: int, left: int) -> Generator[int, None, None]:
        with closing(read(number * partial.range_bytes + partial.done[number], left)) as chunks:
            for data in chunks:
                left -= len(data)
                if left < 0:
                    raise ServerError(f"more came of artifact {self._artifact.path!r} than was asked for")
                partial.write(number, data)
                yield len(data)

    def _damage(self) -> PenstockError:
        self._damaged += 1
        told = f"artifact {self._artifact.path!r} arrived damaged: its SHA-256 is not the one that it was stored with"
        return Unavailable(told) if self._damaged < _DAMAGED else ServerError(told)

    def _request(self, start: int, length: int) -> pb.DownloadArtifactRequest:
        return pb.DownloadArtifactRequest(
            run_id=self._run_id,
            path=self._artifact.path,
            offset=start,
            length=length,
            sha256=bytes.fromhex(self._artifact.sha256),
        )

    def _reader(self) -> _Read | Path:
        """How the bytes are to be had: from the server, unless it says that there is a shorter way, and there is."""
        located = self._locate()
        if located.route == pb.ARTIFACT_ROUTE_SIGNED:
            self._url = located.url
            return self._from_store
        if located.route == pb.ARTIFACT_ROUTE_FILE:
            path = direct.path_of(located.url)
            if os.access(path, os.R_OK) and path.stat().st_size == self._artifact.size:
                return path
        return self._from_server

    def _locate(self) -> pb.LocateArtifactResponse:
        message = pb.LocateArtifactRequest(run_id=self._run_id, path=self._artifact.path)
        located: pb.LocateArtifactResponse = self._wire.ask("LocateArtifact", message)
        if located.artifact.sha256.hex() != self._artifact.sha256:
            raise Changed(f"artifact {self._artifact.path!r} has been replaced by another")
        return located

    def _from_server(self, start: int, length: int) -> Generator[memoryview, None, None]:
        message = self._request(start, length)
        with Watched(
            self._wire, lambda: self._effort.stopped, lambda _: self._wire.receive("DownloadArtifact", message)
        ) as stream:
            yield from _bytes_of(stream)

    def _from_store(self, start: int, length: int) -> Generator[bytes, None, None]:
        url = self._url
        try:
            yield from self._http.get(url, start, length)
        except direct.Expired:
            pass
        else:
            return
        with self._lock:
            if self._url == url:
                self._url = self._locate().url
        try:
            yield from self._http.get(self._url, start, length)
        except direct.Expired as error:  # as fresh as it can be
            raise FailedPrecondition(str(error)) from None


def _copied(partial: Partial, path: Path, number: int, left: int) -> Generator[int, None, None]:
    with path.open("rb", buffering=0) as file:
        while left > 0 and (count := partial.copy(number, file, min(_COPIED, left))):
            left -= count
            yield count


def _bytes_of(messages: Iterable[bytes]) -> Iterator[memoryview]:
    """The chunks of a download, none of which is empty: that something comes is that it advances."""
    for message in messages:
        chunk = chunk_in(message)
        if chunk is None:
            chunk = memoryview(pb.DownloadArtifactResponse.FromString(message).chunk)
        if chunk:
            yield chunk
