"""What an MLflow server, database or directory has, in our words. All of this blocks: it is called in threads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from penstock_server.importing.mlflow_package import MlflowPackage
from penstock_server.model.artifacts import check_directory
from penstock_server.model.datasets import Dataset, DatasetInput, ModelOutput
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.imports import (
    ImportedExperiment,
    ImportedModel,
    ImportedRegisteredModel,
    ImportedRun,
    ImportedVersion,
    imported_id,
)
from penstock_server.model.lifecycle import Lifecycle
from penstock_server.model.logged_models import LoggedModelId, LoggedModelStatus, ModelMetric
from penstock_server.model.registry import Stage, VersionStatus, logged_model_source, run_source
from penstock_server.model.runs import COMMIT_LIMIT, NAME_LIMIT, SOURCE_LIMIT, USER_LIMIT, RunId, RunStatus
from penstock_server.postgres.points import Columns

_PAGE = 1_000
_MODELS_PAGE = 50  # what stores allow at most where they allow little
_OURS = "mlflow-artifacts:"
_PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


class Source:
    """Reads a source, page after page."""

    def __init__(self, package: MlflowPackage) -> None:
        self._package = package
        self._client = package.client

    def experiments(self, named: list[str]) -> list[ImportedExperiment]:
        """All experiments, deleted ones too; only these, by name or id, where any are named."""
        every = self._package.entities.ViewType.ALL
        found = [
            ImportedExperiment(
                str(each.experiment_id),
                each.name,
                _lifecycle(each.lifecycle_stage),
                each.creation_time or 0,
                each.last_update_time or each.creation_time or 0,
                each.artifact_location or "",
                dict(each.tags or {}),
            )
            for each in _pages(self._client.search_experiments, view_type=every, max_results=_PAGE)
        ]
        return [each for each in found if not named or each.name in named or each.source_id in named]

    def runs(self, experiment_id: str) -> Iterator[ImportedRun]:
        """All runs of an experiment, oldest first, so that what begins meanwhile comes last."""
        for run in _pages(
            self._client.search_runs,
            experiment_ids=[experiment_id],
            run_view_type=self._package.entities.ViewType.ALL,
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
        ):
            yield _run(run)

    def history(self, run: ImportedRun, name: str) -> Columns:
        """All the points of a metric of a run."""
        points = self._client.get_metric_history(run.source_id, name)
        return Columns(
            np.array([each.step for each in points], np.int64),
            np.array([each.timestamp for each in points], np.int64),
            np.array([each.value for each in points], np.float64),
        )

    def logged_models(self, experiment_id: str) -> Iterator[ImportedModel]:
        """All logged models of an experiment; none where MLflow is older than 3."""
        if hasattr(self._client, "search_logged_models"):
            search = self._client.search_logged_models
            for model in _pages(search, experiment_ids=[experiment_id], max_results=_MODELS_PAGE):
                yield _logged_model(model)

    def registered_models(
        self, run_uris: dict[str, str], model_uris: dict[str, uuid.UUID]
    ) -> Iterator[ImportedRegisteredModel]:
        """All registered models and prompts. What versions stand on is found by where the source keeps their files:

        `run_uris` are those of runs, by their ids, `model_uris` those of logged models, each with its id here.
        """
        seen = set()
        for is_prompt in (False, True):
            given = {"filter_string": _PROMPTS} if is_prompt else {}
            for model in _pages(self._client.search_registered_models, max_results=_PAGE // 10, **given):
                if model.name not in seen:
                    seen.add(model.name)
                    yield self._registered(model, run_uris, model_uris, is_prompt=is_prompt)

    def _registered(
        self, model: Any, run_uris: dict[str, str], model_uris: dict[str, uuid.UUID], *, is_prompt: bool
    ) -> ImportedRegisteredModel:
        quote = '"' if "'" in model.name else "'"
        # Of prompts versions are told to who asks for prompts only.
        named = f"name={quote}{model.name}{quote}" + (f" AND {_PROMPTS}" if is_prompt else "")
        found = {int(each.version): each for each in model.latest_versions or []}
        for each in _pages(self._client.search_model_versions, filter_string=named, max_results=_PAGE // 10):
            found[int(each.version)] = each
        return ImportedRegisteredModel(
            model.name,
            model.description or "",
            model.creation_timestamp or 0,
            model.last_updated_timestamp or model.creation_timestamp or 0,
            _tags(model),
            {alias: int(version) for alias, version in (getattr(model, "aliases", None) or {}).items()},
            [_version(each, run_uris, model_uris) for _, each in sorted(found.items())],
        )

    def files(self, uri: str) -> list[tuple[str, int]]:
        """The paths and sizes of all files below a place."""
        return self._package.files(uri)


def is_served(location: str) -> bool:
    """Whether a location is one that only the source's own server knows the meaning of."""
    return location.startswith(_OURS)


def _pages(search: Any, **arguments: Any) -> Iterator[Any]:
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def _lifecycle(stage: str) -> Lifecycle:
    return Lifecycle.DELETED if stage == "deleted" else Lifecycle.ACTIVE


def _run(run: Any) -> ImportedRun:
    tags = {str(key): str(value) for key, value in run.data.tags.items()}
    name = run.info.run_name or tags.get("mlflow.runName") or run.info.run_id[:8]
    tags.pop("mlflow.runName", None)
    user = run.info.user_id or tags.get("mlflow.user", "")
    parent = tags.get("mlflow.parentRunId", "")
    inputs = run.inputs.dataset_inputs if run.inputs else []
    models = getattr(run.inputs, "model_inputs", None) or []
    outputs = getattr(getattr(run, "outputs", None), "model_outputs", None) or []
    status = run.info.status
    return ImportedRun(
        run.info.run_id,
        RunId(imported_id(run.info.run_id)),
        name[:NAME_LIMIT],
        RunStatus[status] if isinstance(status, str) else RunStatus(status),
        _lifecycle(run.info.lifecycle_stage),
        user[:USER_LIMIT],
        tags.get("mlflow.source.name", "")[:SOURCE_LIMIT],
        tags.get("mlflow.source.git.commit", "")[:COMMIT_LIMIT],
        RunId(imported_id(parent)) if parent else None,
        run.info.start_time or 0,
        run.info.end_time,
        run.info.artifact_uri or "",
        {str(key): str(value) for key, value in run.data.params.items()},
        tags,
        sorted(run.data.metrics),
        [_input(each) for each in inputs],
        [_model_id(each.model_id) for each in models],
        [ModelOutput(_model_id(each.model_id), each.step or 0) for each in outputs],
    )


def _input(given: Any) -> DatasetInput:
    of_it = given.dataset
    dataset = Dataset(
        of_it.name, of_it.digest, of_it.source_type or "", of_it.source or "", of_it.schema, of_it.profile
    )
    return DatasetInput(dataset, {tag.key: tag.value for tag in given.tags or []})


def _model_id(text: str) -> str:
    return f"m-{imported_id(text.removeprefix('m-')).hex}"


def _logged_model(model: Any) -> ImportedModel:
    metrics = [
        ModelMetric(
            RunId(imported_id(each.run_id)),
            each.key,
            each.value,
            each.timestamp,
            each.step or 0,
            each.dataset_name or "",
            each.dataset_digest or "",
        )
        for each in model.metrics or []
        if each.run_id
    ]
    return ImportedModel(
        model.model_id,
        LoggedModelId(imported_id(model.model_id.removeprefix("m-"))),
        model.name,
        model.model_type or "",
        LoggedModelStatus[str(getattr(model.status, "value", model.status))],
        imported_id(model.source_run_id).hex if model.source_run_id else "",
        model.creation_timestamp,
        model.last_updated_timestamp or model.creation_timestamp,
        model.artifact_location,
        {str(key): str(value) for key, value in (model.params or {}).items()},
        {str(key): str(value) for key, value in (model.tags or {}).items()},
        metrics,
    )


def _tags(given: Any) -> dict[str, str]:
    """The tags of a registered model or a version, with the one that marks prompts, which MLflow hides."""
    return {str(key): str(value) for key, value in (getattr(given, "_tags", None) or given.tags or {}).items()}


def _version(version: Any, run_uris: dict[str, str], model_uris: dict[str, uuid.UUID]) -> ImportedVersion:
    run_id = RunId(imported_id(version.run_id)) if version.run_id else None
    source, path, logged_model_id = version.source or "", "", None
    if source.startswith("models:/m-"):
        logged_model_id = imported_id(source.removeprefix("models:/m-"))
        source = logged_model_source(logged_model_id)
    elif (found := next((uri for uri in model_uris if _below(source, uri) == ""), None)) is not None:
        logged_model_id = model_uris[found]
        source = logged_model_source(logged_model_id)
    elif run_id is not None and (inside := _in_run(source, version.run_id, run_uris)) is not None:
        path = inside
        source = run_source(run_id, path)
    return ImportedVersion(
        int(version.version),
        source,
        run_id,
        path,
        logged_model_id,
        version.run_link or "",
        _STATUSES.get(version.status, VersionStatus.READY),
        version.status_message or "",
        Stage.called(version.current_stage or "None") or Stage.NONE,
        version.description or "",
        version.user_id or "",
        version.creation_timestamp or 0,
        version.last_updated_timestamp or version.creation_timestamp or 0,
        _tags(version),
    )


_STATUSES = {
    "PENDING_REGISTRATION": VersionStatus.PENDING,
    "FAILED_REGISTRATION": VersionStatus.FAILED,
    "READY": VersionStatus.READY,
}


def _in_run(source: str, run_id: str, run_uris: dict[str, str]) -> str | None:
    """The path in its run that a version's source names; None when it is none."""
    inside = None
    if source.startswith(f"runs:/{run_id}/"):
        inside = source.removeprefix(f"runs:/{run_id}/")
    elif run_id in run_uris:
        inside = _below(source, run_uris[run_id])
    try:
        return None if inside is None else check_directory(inside)
    except InvalidArgument:
        return None


def _below(uri: str, above: str) -> str | None:
    """The path of one place below another; empty when they are the same, None when it is not."""
    one, other = urlsplit(uri), urlsplit(above)
    if (one.scheme or "file", one.netloc) != (other.scheme or "file", other.netloc):
        return None
    path, root = unquote(one.path).rstrip("/"), unquote(other.path).rstrip("/")
    if path == root:
        return ""
    return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None
