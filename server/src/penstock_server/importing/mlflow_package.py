"""MLflow's own package, which alone knows all its stores. It is read with, when it is there."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from penstock_server.model.errors import FailedPrecondition

_INSTALL = (
    "to read what MLflow has, its package is needed beside this server: pip install mlflow "
    "(of the version that wrote it, or newer; for a database with its driver, such as psycopg2-binary)"
)


class MlflowPackage:
    """Clients of a source, and the text that it is told by."""

    def __init__(self, tracking_uri: str, registry_uri: str | None) -> None:
        """Loads the package. Raises FailedPrecondition when it is not there, or has nothing to read at the address."""
        try:
            variables = importlib.import_module("mlflow.environment_variables")
            tracking = importlib.import_module("mlflow.tracking")
            self.entities: Any = importlib.import_module("mlflow.entities")
            self._repositories: Any = importlib.import_module("mlflow.store.artifact.artifact_repository_registry")
        except ImportError as error:
            raise FailedPrecondition(f"{_INSTALL}; {error}") from error
        # MLflow 3 reads directories only when it is told to; and nobody asked it to report on whoever imports.
        for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
            if hasattr(variables, name):
                getattr(variables, name).set(True)
        uri = address(tracking_uri)
        registry = address(registry_uri) if registry_uri else uri
        tracking.set_tracking_uri(uri)  # by which it finds what mlflow-artifacts: stands for
        tracking.set_registry_uri(registry)
        made = not Path("mlruns").exists()
        try:
            self.client: Any = tracking.MlflowClient(uri, registry)
            self.client.search_experiments(max_results=1)
        except Exception as error:
            raise FailedPrecondition(f"MLflow cannot read {told(uri)}: {error}") from error
        finally:
            # The store of a database makes a directory for its artifacts wherever it is opened.
            if made and Path("mlruns").is_dir() and not any(Path("mlruns").iterdir()):
                Path("mlruns").rmdir()

    def files(self, uri: str) -> list[tuple[str, int]]:
        """The paths and sizes of all files below a place; none where there is no such place on this machine."""
        local = local_directory(uri)
        if local is not None:
            found = [each for each in local.rglob("*") if each.is_file()] if local.is_dir() else []
            return sorted((each.relative_to(local).as_posix(), each.stat().st_size) for each in found)
        repository, files, directories = self._repositories.get_artifact_repository(uri), [], [""]
        while directories:
            for each in repository.list_artifacts(directories.pop() or None):
                if each.is_dir:
                    directories.append(each.path)
                else:
                    files.append((each.path, each.file_size or 0))
        return sorted(files)

    def fetch(self, uri: str, path: str, directory: str) -> Path:
        """A file of this machine with the bytes of `path` below a place; in `directory` where it is none yet."""
        local = local_directory(uri)
        if local is not None:
            return local / path
        repository = self._repositories.get_artifact_repository(uri)
        return Path(repository.download_artifacts(path, directory))


def address(given: str) -> str:
    """The tracking URI that is meant, by a directory too. Raises FailedPrecondition where MLflow would make a new one.

    As it does of a database's file, or of a directory, that is not there.
    """
    scheme = urlsplit(given).scheme
    if scheme in ("", "file") or len(scheme) == 1:
        directory = local_directory(given)
        assert directory is not None
        if not directory.is_dir():
            raise FailedPrecondition(f"{directory} is no directory")
        if not any(directory.glob("*/meta.yaml")) and not any(directory.glob("models/*/meta.yaml")):
            raise FailedPrecondition(f"{directory} has no experiments of MLflow; name its mlruns")
        return directory.as_uri()
    if scheme.startswith("sqlite"):
        file = given.partition(":///")[2].partition("?")[0]
        if not Path(file).is_file():
            raise FailedPrecondition(f"there is no database {file or given}")
    return given


def local_directory(uri: str) -> Path | None:
    """The directory of this machine that a URI or a path names; None for what is elsewhere."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path)).absolute()
    if parts.scheme == "" or len(parts.scheme) == 1:
        return Path(uri).absolute()
    return None


def told(uri: str) -> str:
    """An address without what is secret in it."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    user = parts.netloc.partition(":")[0].partition("@")[0]
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()
