"""The files of runs: what there is, and the end of it. `uploads` and `downloads` move their bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from penstock.calls import ARTIFACTS, Flow, in_pages, request
from penstock.paths import artifact_directory, artifact_path
from penstock.v1 import artifacts_pb2 as pb

_PAGE = 10_000


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of a run, or a directory of such, which has nothing but a path.

    `size` is in bytes, `sha256` in hexadecimal digits, `update_time_ms` in ms since 1970 UTC.
    """

    path: str
    is_directory: bool
    size: int
    sha256: str
    media_type: str
    update_time_ms: int


def artifact_of(message: pb.Artifact) -> Artifact:
    """From the wire."""
    return Artifact(
        path=message.path,
        is_directory=message.is_directory,
        size=message.size,
        sha256=message.sha256.hex(),
        media_type=message.media_type,
        update_time_ms=message.update_time_ms,
    )


def list_artifacts(
    run_id: str, directory: str | os.PathLike[str] = "", *, recursive: bool = False
) -> Flow[list[Artifact]]:
    """What is in a directory of a run, sorted by path: files and directories, or all files below it.

    A directory that is not there is empty. Raises NotFound when the run is not.
    """
    message = pb.ListArtifactsRequest(run_id=run_id, directory=artifact_directory(directory), recursive=recursive)
    return (
        yield from in_pages(
            ARTIFACTS, "ListArtifacts", message, None, lambda page: map(artifact_of, page.artifacts), _PAGE
        )
    )


def stat_artifact(run_id: str, path: str | os.PathLike[str]) -> Flow[Artifact]:
    """One artifact or directory. Raises NotFound."""
    message = pb.StatArtifactRequest(run_id=run_id, path=artifact_path(path))
    return artifact_of((yield request(ARTIFACTS, "StatArtifact", message)).artifact)


def delete_artifact(run_id: str, path: str | os.PathLike[str], *, force: bool = False) -> Flow[int]:
    """Delete an artifact, or a directory with all in it. Returns how many files that were.

    Raises NotFound; FailedPrecondition when versions of registered models stand on it, unless `force`.
    """
    message = pb.DeleteArtifactRequest(run_id=run_id, path=artifact_path(path), force=force)
    deleted: int = (yield request(ARTIFACTS, "DeleteArtifact", message)).deleted
    return deleted
