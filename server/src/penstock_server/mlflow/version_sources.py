"""Where the bytes of a version are: what MLflow's clients may say of it, and what they are told.

The rules are MLflow's. Who says that they are a run's or a logged model's must tell whose; and they are not looked for:
a version may be made before its files.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import NoReturn
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from penstock_server.core.model_versions import ModelVersions
from penstock_server.mlflow import locations, places, prompts
from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.errors import invalid, missing
from penstock_server.model.access import Caller
from penstock_server.model.errors import NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import format_model_id, parse_model_id
from penstock_server.model.metrics import check_key
from penstock_server.model.registry import (
    SOURCE_LIMIT,
    ModelVersion,
    NewVersion,
    is_of_run,
    parse_logged_model_source,
    parse_ref,
)
from penstock_server.model.runs import RunId, format_run_id, parse_run_id

_OURS = "mlflow-artifacts"
_PROXY = ["api", "2.0", "mlflow-artifacts", "artifacts"]

Home = tuple[ExperimentId, str]  # an experiment, and its artifact_location


async def read(caller: Caller, arguments: Arguments, versions: ModelVersions) -> NewVersion:
    """What a request says of a version to be made. Raises MlflowError, InvalidArgument, NotFound."""
    name, source, tags = arguments.required("name"), arguments.required("source"), arguments.pairs("tags")
    for key in tags:
        check_key("tag key", key)
    new = NewVersion(
        name,
        run_id=_run_id(arguments),
        source=source,
        description=arguments.text("description"),
        tags=tags,
        logged_model_id=_model_id(arguments),
        run_link=arguments.text("run_link"),
        as_told=True,
    )
    if prompts.is_one(tags):
        return replace(new, source=prompts.check_source(source))
    try:
        url = urlsplit(source)
    except ValueError:
        raise invalid(f"Invalid model version source: '{source}'.") from None
    if url.scheme == "models":
        return await _of_model(caller, new, url, versions)
    if url.scheme in ("", "file"):
        return await _of_directory(caller, new, url, versions)
    _check_path(source, url)
    if url.scheme == "runs":
        run, _, _ = url.path.lstrip("/").partition("/")
        if url.netloc or new.logged_model_id or new.run_id is None or run != format_run_id(new.run_id):
            _refuse(new)
        return new
    if url.scheme == _OURS or _is_proxied(url):
        path = _within(url, await _root(caller, new, versions))
        if path is None:
            _refuse(new)
        return replace(new, source="", path=path, given_source=source) if url.scheme == _OURS else new
    return new


def location(version: ModelVersion, home: Home | None) -> str:
    """Where MLflow's clients find the files of a version. `home` is what ModelVersions.home() says of it."""
    if parse_logged_model_source(version.source) is not None:
        return _place(home, version.run_id, version.logged_model_id, version.path) if home else version.source
    if not is_of_run(version.source):
        return version.source
    if version.given_source.startswith(f"{_OURS}:"):
        return version.given_source
    # Else clients look for themselves: what the run calls so may be a model that it has logged.
    if home is None or home[1] or version.source_problem:
        return version.source
    return _place(home, version.run_id, None, version.path)


def _place(home: Home, run_id: RunId | None, logged_model_id: uuid.UUID | None, path: str = "") -> str:
    """A path of a logged model, if one is told, or else of a run."""
    inner = f"models/{format_model_id(logged_model_id)}" if logged_model_id else format_run_id(run_id) if run_id else ""
    return locations.below(locations.of_experiment(*home), f"{inner}/artifacts" + (f"/{path}" if path else ""))


async def _of_model(caller: Caller, new: NewVersion, url: SplitResult, versions: ModelVersions) -> NewVersion:
    """Of a logged model, or of what another version is of."""
    logged = parse_logged_model_source(new.source)
    if url.netloc or (logged is not None and logged != new.logged_model_id):
        _refuse(new, "model_id")
    if logged is not None:
        return new
    ref = parse_ref(new.source, "source")
    try:
        original = await versions.resolve(caller, ref)
    except NotFound as error:
        if error.kind != "alias":
            raise
        raise invalid(f"Registered model alias {ref.alias} not found.") from None
    if prompts.is_one(original.tags):
        raise invalid(
            f"Invalid model version source: '{new.source}'. Prompt versions cannot be used as model version sources."
        )
    return replace(new, source=f"models:/{original.name}/{original.version}")


async def _of_directory(caller: Caller, new: NewVersion, url: SplitResult, versions: ModelVersions) -> NewVersion:
    """In a file system, which the server never looks into: of a run whose experiment is kept there."""
    root = await _root(caller, new, versions)
    there = urlsplit(root).path if root is not None and urlsplit(root).scheme in ("", "file") else None
    if there is None or url.netloc or ".." in url.path.split("/") or _within(urlsplit(url.path), there) is None:
        which = "model_id" if new.logged_model_id else "run_id"
        raise invalid(
            f"Invalid model version source: '{new.source}'. To use a local path as a model version source, the {which} "
            "request parameter has to be specified and the local path has to be contained within the artifact "
            f"directory of the run specified by the {which}."
        )
    return new


async def _root(caller: Caller, new: NewVersion, versions: ModelVersions) -> str | None:
    """Where the artifacts are of the logged model, or of the run, that a version says it is of."""
    run_id = None if new.logged_model_id else new.run_id
    home = await versions.home(caller, run_id, new.logged_model_id)
    return None if home is None else _place(home, run_id, new.logged_model_id)


def _within(url: SplitResult, root: str | None) -> str | None:
    """The path of a place below a root; None when it is not there."""
    if root is None:
        return None
    above = urlsplit(root)
    parts, start = ([unquote(part) for part in each.path.split("/") if part] for each in (url, above))
    same = (url.scheme, url.netloc.lower()) == (above.scheme, above.netloc.lower()) and parts[: len(start)] == start
    return "/".join(parts[len(start) :]) if same else None


def _is_proxied(url: SplitResult) -> bool:
    """Whether it is an MLflow server's way to its artifacts."""
    parts = [unquote(part) for part in url.path.split("/") if part]
    return url.scheme in ("http", "https") and any(parts[at : at + 4] == _PROXY for at in range(len(parts) - 3))


def _check_path(source: str, url: SplitResult) -> None:
    """Refuses what leads elsewhere than it seems."""
    plain = places.plainly(source, unquote_plus) if len(source) <= SOURCE_LIMIT else None
    parts = url.path.rstrip("/").split("/")
    if plain is None or "\0" in plain or ".." in plain.split("/") or "." in parts or len(parts) < 2 or parts[0]:
        raise invalid(
            f"Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, "
            "objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references "
            "present. Please provide an absolute path."
        )


def _refuse(new: NewVersion, which: str = "") -> NoReturn:
    which = which or ("model_id" if new.logged_model_id else "run_id")
    raise invalid(
        f"Invalid model version source: '{new.source}'. The {which} request parameter must identify the resource that "
        "contains the source."
    )


def _run_id(arguments: Arguments) -> RunId | None:
    text = arguments.text("run_id")
    return parse_run_id(text) if text else None


def _model_id(arguments: Arguments) -> uuid.UUID | None:
    text = arguments.text("model_id")
    if not text:
        return None
    if (found := parse_model_id(text)) is None:
        raise missing(f"Logged model with ID '{text[:256]}' not found.")
    return found
