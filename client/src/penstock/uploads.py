"""From this machine into a run: through the server, or straight to the store where the server says so (`direct`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from penstock import direct, small_files
from penstock.artifacts import Artifact, artifact_of, list_artifacts
from penstock.chunks import chunk_message
from penstock.effort import PATIENCE, Effort, Progress
from penstock.errors import (
    NotFound,
    PenstockError,
    Retryable,
    ServerError,
    Stopped,
    TransferFailed,
    UnknownCall,
    UploadGone,
)
from penstock.parallel import in_parallel, kept
from penstock.paths import artifact_directory, artifact_path, files_below
from penstock.sources import Source
from penstock.transport import Stream
from penstock.v1 import artifacts_pb2 as pb
from penstock.wire import CHUNK, STALL, Watched, Wire

FILES = 16  # at once
_NO_DIGEST = bytes(32)  # of anything
_ABORT_TIMEOUT = 5.0  # seconds
_READ_BACK = 10 << 20  # bytes a second, at least, where a server checks what is stored before it answers


def upload_artifact(
    wire: Wire,
    run_id: str,
    source: str | os.PathLike[str] | bytes,
    path: str | os.PathLike[str] | None = None,
    *,
    media_type: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    patience: float | None = PATIENCE,
) -> Artifact:
    """Bring a file, or bytes, into a run. Returns the artifact when it is stored and visible.

    What is at the path already is replaced as a whole, or not stored again when it is the same; above 1 MiB it is not
    sent either. What is stored of an upload that broke off in the last day is not sent again, also by another process;
    where files go straight to the store, by this process only.

    Args:
        run_id: which run.
        source: a path of this machine, or the bytes themselves.
        path: where in the run. None: the file's name.
        media_type: such as "text/plain". None: as the name says.
        force: also in the place of what versions of registered models stand on.
        progress: called with the bytes done since its last call, from any thread; with a negative number when some
            have to be sent again.
        stop: once it is set, this ends with `errors.Stopped`.
        patience: how many seconds nothing may advance before it gives up; None: it never does; 0: no second time.
            What goes straight to a store is tried for sixty seconds at least.

    Raises:
        ValueError: a path that cannot be one of an artifact, or a source that is no file.
        OSError: the file cannot be read.
        errors.SourceChanged: the file was written to meanwhile. Nothing of it is visible.
        errors.Stopped: `stop` was set.
        errors.Retryable: the server or its store were away for too long.
        errors.PenstockError: the server does not take it: NotFound, where there is no such run; FailedPrecondition,
            where that is deleted, a directory is in the way, or versions of registered models stand on what is at the
            path, or the store cannot be used; InvalidArgument, PermissionDenied, ServerError.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        if path is None:
            raise ValueError("bytes have no name: say at which path they are to be")
        given: Path | bytes = bytes(source)
    else:
        given = Path(source)
    where = artifact_path(given.name if path is None and isinstance(given, Path) else path or "")
    return _upload(wire, run_id, given, where, media_type, Effort(patience, progress, stop), force=force)


def upload_artifacts(
    wire: Wire,
    run_id: str,
    directory: str | os.PathLike[str],
    path: str | os.PathLike[str] = "",
    *,
    force: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    patience: float | None = PATIENCE,
) -> list[Artifact]:
    """Bring all files below a directory into a run, below `path`. Returns them sorted by path.

    Sixteen at once; of files to 64 KiB sixteen times 128.

    What is there already and the same is not sent. A link to a file is taken for the file; one to a directory is left
    out, for it may lead in a circle. The other arguments are those of `upload_artifact`.

    Raises:
        errors.NotFound: there is no such run.
        OSError, ValueError: it is no directory, or `path` none of a run.
        errors.TransferFailed: some files could not be uploaded; all others are. Its `failures` says which and why.
    """
    root, prefix = Path(directory), artifact_directory(path)
    found = list(files_below(root))
    effort = Effort(patience, progress, stop)
    if not found:
        return []
    listed = effort.persist(lambda: wire.carry(list_artifacts(run_id, prefix, recursive=True)))
    there = {artifact.path: artifact for artifact in listed}
    transfer = _Directory(wire, run_id, root, prefix, effort, there, force=force)
    transfer.upload(found)
    if transfer.failures:
        raise TransferFailed(transfer.failures, len(found))
    return sorted(transfer.done, key=lambda artifact: artifact.path)


class _Directory:
    """Files below a directory, on their way: small ones many at a time."""

    def __init__(
        self,
        wire: Wire,
        run_id: str,
        root: Path,
        prefix: str,
        effort: Effort,
        there: dict[str, Artifact],
        *,
        force: bool,
    ) -> None:
        self._wire = wire
        self._run_id = run_id
        self._root = root
        self._prefix = prefix
        self._effort = effort
        self._there = there
        self._force = force
        self._single: list[str] = []  # are left to be sent one by one, to a server that takes them only so
        self.done: list[Artifact] = []
        self.failures: dict[str, Exception] = {}

    def upload(self, found: Sequence[str]) -> None:
        """All that can be."""
        in_parallel(self._some, small_files.gathered(self._root, found), min(FILES, len(found)), self._effort)
        if self._single:
            in_parallel(self._one, self._single, min(FILES, len(self._single)), self._effort)

    def _where(self, relative: str) -> str:
        return artifact_path(f"{self._prefix}/{relative}" if self._prefix else relative)

    def _one(self, relative: str) -> None:
        with self._failing(relative):
            where = self._where(relative)
            source, there = self._root / relative, self._there.get(where)
            self.done.append(
                _upload(self._wire, self._run_id, source, where, None, self._effort, there, force=self._force)
            )

    def _some(self, together: Sequence[str]) -> None:
        if len(together) == 1:
            self._one(together[0])
        elif self._single:
            self._single += together
        else:
            self._small(together)

    def _small(self, together: Sequence[str]) -> None:
        files: dict[str, pb.UploadArtifactsRequest.File] = {}
        for relative in together:
            with self._failing(relative), Source(self._root / relative) as source:
                if source.size > small_files.SMALL:  # by now
                    self._one(relative)
                    continue
                data = source.read(0, source.size)
                source.check()
                where, digest = self._where(relative), source.digest()
                there = self._there.get(where)
                if there is not None and (there.size, there.sha256) == (len(data), digest.hex()):
                    self._effort.count(len(data))
                    self.done.append(there)
                else:
                    files[relative] = pb.UploadArtifactsRequest.File(path=where, data=data, sha256=digest)
        if not files:
            return
        try:
            outcomes = small_files.send(self._wire, self._run_id, list(files.values()), self._effort, force=self._force)
        except UnknownCall:
            self._single += files
            return
        for relative, outcome in zip(files, outcomes, strict=True):
            with self._failing(relative):
                if not isinstance(outcome, Artifact):
                    raise outcome
                self.done.append(outcome)

    @contextmanager
    def _failing(self, relative: str) -> Iterator[None]:
        """Inside, what is raised is told as this file's."""
        try:
            yield
        except (PenstockError, OSError, ValueError) as error:
            self.failures[relative] = kept(error)


def _upload(
    wire: Wire,
    run_id: str,
    source: Path | bytes,
    path: str,
    media_type: str | None,
    effort: Effort,
    there: Artifact | None = None,
    *,
    force: bool,
) -> Artifact:
    """`there` is what is known to be at the path."""
    with Source(source) as opened:
        return _Upload(wire, run_id, opened, path, media_type or "", effort, there, force=force).work()


class _Upload:
    """One file on its way."""

    def __init__(
        self,
        wire: Wire,
        run_id: str,
        source: Source,
        path: str,
        media_type: str,
        effort: Effort,
        there: Artifact | None,
        *,
        force: bool,
    ) -> None:
        self._wire = wire
        self._run_id = run_id
        self._source = source
        self._path = path
        self._media_type = media_type
        self._effort = effort
        self._there = there
        self._force = force
        self._key = (wire.address, run_id, path, source.size, media_type)  # of what may be left of it
        self._looked = False  # at what is there already
        self._upload_id = ""  # of our own, to be gone on with
        self._stored = 0  # bytes that the server had at the best of times
        self._trouble: Exception | None = None  # while the file was read
        self._done = 0  # bytes told as progress
        self._lock = threading.Lock()  # of that

    def work(self) -> Artifact:
        """Try it until it is there."""
        artifact = self._effort.persist(self._try)
        self._progress(self._source.size)
        self._effort.advanced()
        return artifact

    def _try(self) -> Artifact:
        self._progress(0)
        return self._small() if self._source.size <= CHUNK else self._large()

    def _progress(self, done: int) -> None:
        with self._lock:
            step, self._done = done - self._done, done
        self._effort.count(step)

    def _small(self) -> Artifact:
        """In one message: the server knows by the digest whether it is there already."""
        data = self._source.read(0, self._source.size)
        self._source.check()
        there = self._there
        if there is not None and (there.size, there.sha256) == (len(data), self._source.digest().hex()):
            return there
        answer = self._wire.ask_unless(lambda: self._effort.stopped, "UploadArtifact", self._header(data=data))
        return artifact_of(pb.UploadArtifactResponse.FromString(answer).artifact)

    def _header(self, upload_id: str = "", offset: int = 0, data: bytes = b"") -> bytes:
        header = pb.UploadHeader(
            run_id=self._run_id,
            path=self._path,
            size=self._source.size,
            sha256=self._known(),
            media_type=self._media_type,
            upload_id=upload_id,
            offset=offset,
            data=data,
            force=self._force,
        )
        return pb.UploadArtifactRequest(header=header).SerializeToString()

    def _known(self) -> bytes:
        """The digest, where all has been read already."""
        return self._source.digest() if self._source.hashed else b""

    def _large(self) -> Artifact:
        if not self._looked:
            if self._same_size():
                for _ in self._source.chunks():  # hashes them
                    self._effort.check()
            self._looked = True
        if (left := direct.unfinished.take(self._key)) is not None:
            return self._straight(left)
        message = pb.BeginUploadRequest(
            run_id=self._run_id,
            path=self._path,
            size=self._source.size,
            sha256=self._known(),
            media_type=self._media_type,
            upload_id=self._upload_id,
            force=self._force,
        )
        begun = self._wire.ask("BeginUpload", message)
        if not begun.upload_id:
            return artifact_of(begun.artifact)
        match begun.route:
            case pb.ARTIFACT_ROUTE_SERVER:
                self._upload_id = begun.upload_id
                return self._send(begun.upload_id, self._agreed(begun))
            case pb.ARTIFACT_ROUTE_SIGNED | pb.ARTIFACT_ROUTE_FILE:
                return self._straight(direct.Begun(begun))
        raise ServerError(f"the server names a way for the bytes (route {begun.route}) that this client does not know")

    def _same_size(self) -> bool:
        """Whether what is there may be this very file."""
        try:
            there = self._wire.ask("StatArtifact", pb.StatArtifactRequest(run_id=self._run_id, path=self._path))
        except NotFound:
            return False  # nothing, or no such run: that the next request tells
        return not there.artifact.is_directory and there.artifact.size == self._source.size

    def _agreed(self, begun: pb.BeginUploadResponse) -> int:
        """How many bytes are stored of this very file."""
        end = agreed = 0
        for part in begun.parts:
            end += part.size
            if part.prefix_sha256:
                if self._source.digest(end) != part.prefix_sha256:
                    break
                agreed = end
            self._effort.check()
        if agreed > self._stored:
            self._stored = agreed
            self._effort.advanced()
        return agreed

    def _send(self, upload_id: str, start: int) -> Artifact:
        """Through the server."""
        self._trouble = None
        self._progress(start)

        def begin(stream: Watched) -> Stream:
            return self._wire.send("UploadArtifact", self._messages(stream, upload_id, start))

        try:
            with Watched(self._wire, lambda: self._effort.stopped, begin) as stream:
                answer = next(iter(stream), b"")
        except PenstockError:
            self._effort.check()
            if self._trouble is None:
                raise
        if self._trouble is not None:
            raise self._trouble
        return artifact_of(pb.UploadArtifactResponse.FromString(answer).artifact)

    def _messages(self, stream: Watched, upload_id: str, start: int) -> Iterator[bytes]:
        """What a thread of gRPC's sends. The last chunk is held back until it is known that the file is the same as
        at the beginning: if it is not, the trailer ends what is too short, and the server keeps nothing of it.
        """
        yield self._header(upload_id, start)
        held, at = b"", start
        try:
            for chunk in self._source.chunks(start):
                if held:
                    yield held
                    stream.moved()
                    self._progress(at)
                if self._effort.stopped:
                    stream.cancel()  # what is stored stays
                    return
                held = chunk_message(chunk)
                at += len(chunk)
            self._source.check()
        except Exception as error:  # noqa: BLE001  whoever waits for the answer raises it
            self._trouble = error
            yield _trailer(_NO_DIGEST)
            return
        if held:
            yield held
        stream.moved(STALL + self._source.size / _READ_BACK)
        yield _trailer(self._source.digest())

    def _straight(self, begun: direct.Begun) -> Artifact:
        """To the store itself; the server hears of it when all is there."""
        upload = {"run_id": self._run_id, "upload_id": begun.answer.upload_id}
        try:
            parts = self._bring(begun)
            self._source.check()
            complete = pb.CompleteUploadRequest(**upload, sha256=self._source.digest(), parts=parts, force=self._force)
            timeout = STALL + self._source.size / _READ_BACK
            answer = self._effort.persist(
                lambda: self._wire.ask("CompleteUpload", complete, timeout), UploadGone, least=PATIENCE
            )
        except UploadGone:
            raise
        except BaseException as error:
            if begun.parts and isinstance(error, (Retryable, Stopped)):
                direct.unfinished.keep(self._key, begun)
                raise
            with suppress(PenstockError):  # else it is swept up in a day
                self._wire.ask("AbortUpload", pb.AbortUploadRequest(**upload), _ABORT_TIMEOUT)
            raise
        return artifact_of(answer.artifact)

    def _bring(self, begun: direct.Begun) -> list[pb.CompleteUploadRequest.Part]:
        if begun.answer.route == pb.ARTIFACT_ROUTE_SIGNED:
            return direct.SignedParts(self._wire, self._run_id, begun, self._source, self._effort, self._progress).put()
        direct.write_file(begun.answer.file_uri, self._source, self._effort, self._progress)
        return []


def _trailer(sha256: bytes) -> bytes:
    return pb.UploadArtifactRequest(trailer=pb.UploadTrailer(sha256=sha256)).SerializeToString()
