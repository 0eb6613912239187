"""The files of runs, logged models and traces, for MLflow: by Penstock's own transfers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from penstock.mlflow.door import client_of, mlflow_errors

_NOUNS = ("models", "traces")


class PenstockArtifactRepository(ArtifactRepository):  # type: ignore[misc]  # MLflow has no types here
    """`penstock://host:50051/<experiment>/<run>/artifacts`, and what is below; of models and traces, too.

    What is uploaded is verified, and visible when the call returns. It is by force: MLflow knows nothing of versions
    that stand on a file, and the registry's history tells.
    """

    def __init__(self, artifact_uri: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(artifact_uri, *args, **kwargs)
        parts = urlsplit(artifact_uri)
        self._owner, self._root = _place(unquote(parts.path))
        self._client = client_of(f"{parts.scheme}://{parts.netloc}")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Bring a file in."""
        with mlflow_errors():
            where = self._within(artifact_path, Path(local_file).name)
            self._client.upload_artifact(self._owner, local_file, where, force=True)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Bring all files below a directory in."""
        with mlflow_errors():
            self._client.upload_artifacts(self._owner, local_dir, self._within(artifact_path), force=True)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What is in a directory; of a file, nothing."""
        with mlflow_errors():
            found = self._client.list_artifacts(self._owner, self._within(path))
        skipped = len(self._root) + 1 if self._root else 0
        return [
            FileInfo(each.path[skipped:], each.is_directory, None if each.is_directory else each.size) for each in found
        ]

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None, **_: object) -> str:
        """Bring a file, or a directory with all in it, to `dst_path`; a new directory where that is None."""
        if dst_path is not None and not Path(dst_path).is_dir():
            code = INVALID_PARAMETER_VALUE if Path(dst_path).exists() else RESOURCE_DOES_NOT_EXIST
            raise MlflowException(f"{dst_path} is no directory for artifacts to be written to", error_code=code)
        root = os.path.abspath(dst_path or tempfile.mkdtemp())  # noqa: PTH100  text, as MLflow has it
        with mlflow_errors():
            where = self._within(artifact_path)
            to = Path(root, where[len(self._root) :].strip("/"))
            to.parent.mkdir(parents=True, exist_ok=True)
            self._client.download_artifacts(self._owner, where, to)
        return str(to)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        with mlflow_errors():
            self._client.download_artifacts(self._owner, self._within(remote_file_path), local_path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """A file, a directory, or all there is."""
        with mlflow_errors():
            where = self._within(artifact_path)
            all_of_it = [found.path for found in self._client.list_artifacts(self._owner)] if not where else [where]
            for path in all_of_it:
                self._client.delete_artifact(self._owner, path, force=True)

    def _within(self, *parts: str | None) -> str:
        """A path of the owner."""
        return "/".join(part.strip("/") for part in (self._root, *parts) if part and part.strip("/"))


def _place(path: str) -> tuple[str, str]:
    """Whose files, and from which directory on. Raises MlflowException."""
    _experiment, *rest = path.strip("/").split("/")
    if rest and rest[0] in _NOUNS:
        rest = rest[1:]
    if len(rest) < 2 or rest[1] != "artifacts":
        raise MlflowException(
            f"{path!r} does not say whose artifacts: expected /<experiment>/<run>/artifacts",
            error_code=INVALID_PARAMETER_VALUE,
        )
    return rest[0], "/".join(rest[2:])
