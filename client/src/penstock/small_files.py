"""Small files, many in one request: what a call costs is paid once for all of them."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import grpc

from penstock.artifacts import Artifact, artifact_of
from penstock.effort import Effort
from penstock.errors import PenstockError, Retryable, ServerError, UnknownCall, from_status
from penstock.v1 import artifacts_pb2 as pb
from penstock.wire import Wire

SMALL = 64 << 10  # bytes; a larger file goes alone
_FILES = 128  # in one request
_BYTES = 512 << 10  # … with paths that is below the least that a server can be set to take

_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def gathered(root: Path, found: Iterable[str]) -> Iterator[list[str]]:
    """Those below `root` that go together; what is not small is alone."""
    together: list[str] = []
    size = 0
    for relative in found:
        of_this = _size(root / relative)
        if of_this > SMALL:
            yield [relative]
            continue
        if size + of_this > _BYTES or len(together) == _FILES:
            yield together
            together, size = [], 0
        together.append(relative)
        size += of_this
    if together:
        yield together


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:
        return SMALL + 1  # whoever opens it tells
    return found.st_size if stat.S_ISREG(found.st_mode) else SMALL + 1


def send(
    wire: Wire, run_id: str, files: Sequence[pb.UploadArtifactsRequest.File], effort: Effort, *, force: bool
) -> list[Artifact | PenstockError]:
    """Of each, in turn, what has become of it; tried again as long as `effort` has it. Raises UnknownCall, Stopped."""
    outcomes: dict[str, Artifact | PenstockError] = {}
    left = list(files)

    def once() -> None:
        message = pb.UploadArtifactsRequest(run_id=run_id, files=left, force=force)
        raw = wire.ask_unless(lambda: effort.stopped, "UploadArtifacts", message.SerializeToString())
        answer = pb.UploadArtifactsResponse.FromString(raw)
        if len(answer.outcomes) != len(left):
            raise ServerError(f"the server tells of {len(answer.outcomes)} files, and was sent {len(left)}")
        again = []
        for file, told in zip(left, answer.outcomes, strict=True):
            outcome = outcomes[file.path] = _outcome(wire, told)
            if isinstance(outcome, Retryable):
                again.append(file)
            elif isinstance(outcome, Artifact):
                effort.count(len(file.data))
                effort.advanced()
        left[:] = again
        if again:
            raise outcomes[again[0].path]  # type: ignore[misc]  # it is an error

    try:
        effort.persist(once)
    except UnknownCall:
        raise
    except PenstockError as error:
        for file in left:
            outcomes.setdefault(file.path, error)
    return [outcomes[file.path] for file in files]


def _outcome(wire: Wire, told: pb.UploadArtifactsResponse.Outcome) -> Artifact | PenstockError:
    if told.HasField("artifact"):
        return artifact_of(told.artifact)
    failure = told.failure
    code = _CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    return from_status(code, failure.reason, failure.facts.items(), wire.address.target)
