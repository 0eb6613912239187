"""Runs, as MLflow's clients know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from penstock_server.core.datasets import Datasets
from penstock_server.core.runs import Runs
from penstock_server.mlflow import datasets, filters, ids, locations, pages, run_texts
from penstock_server.mlflow.arguments import Arguments, integer
from penstock_server.mlflow.door import Answer, Endpoint
from penstock_server.mlflow.errors import invalid
from penstock_server.mlflow.experiments import STAGE, pairs
from penstock_server.mlflow.logged_history import MODELS_TAG, read, with_another
from penstock_server.model.access import Caller, Permission, Resource
from penstock_server.model.errors import NotFound
from penstock_server.model.runs import NewRun, Run, RunId, RunStatus, format_run_id

_HERE = "2.0/mlflow/runs"
_PAGE = 1_000  # as MLflow has it where nothing is said
_PART = 1_000  # runs that are in memory at once, and that others wait for
_NOTHING: Mapping[str, Any] = {}


class RunEndpoints:
    """The endpoints of runs, of their params and of their tags."""

    def __init__(self, runs: Runs, lineages: Datasets) -> None:
        self._runs = runs
        self._lineages = lineages

    def __iter__(self) -> Iterator[Endpoint]:
        write = Permission.WRITE
        yield Endpoint("POST", f"{_HERE}/create", self._create, write, Resource.EXPERIMENT, "experiment_id")
        yield Endpoint("GET", f"{_HERE}/get", self._get, Permission.READ, Resource.RUN, "run_id")
        yield Endpoint("POST", f"{_HERE}/search", self._search, Permission.READ, Resource.EXPERIMENT, "experiment_ids")
        for name, answer in (
            ("update", self._update),
            ("delete", self._delete),
            ("restore", self._restore),
            ("log-parameter", self._log_param),
            ("set-tag", self._set_tag),
            ("delete-tag", self._delete_tag),
            ("log-model", self._log_model),
        ):
            yield Endpoint("POST", f"{_HERE}/{name}", answer, write, Resource.RUN, "run_id")

    async def _create(self, caller: Caller, arguments: Arguments) -> Answer:
        experiment_id = ids.experiment_id(arguments)
        tags, named = run_texts.tags(arguments)
        name = arguments.text("run_name")
        if name and named and name != named:
            raise invalid(
                "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
                f"(run_name='{name}', mlflow.runName='{named}')."
            )
        new = run_texts.new_run(arguments.text("user_id"), name or named, tags, arguments.integer("start_time"))
        return {"run": shown(await self._made(caller, replace(new, experiment_id=experiment_id)))}

    async def _made(self, caller: Caller, new: NewRun) -> Run:
        try:
            return await self._runs.create(caller, new)
        except NotFound as error:
            if error.kind != "run":
                raise
        return await self._runs.create(caller, replace(new, parent_run_id=None))  # the tag may say anything

    async def _get(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id = ids.run_id(arguments)
        [written] = await self._written(caller, [run_id]) or [b""]
        if not written:
            raise NotFound("run", format_run_id(run_id))
        return b'{"run":%b}' % written

    async def _search(self, caller: Caller, arguments: Arguments) -> Answer:
        size, view = pages.size(arguments, _PAGE), pages.view(arguments, "run_view_type")
        within = ids.experiment_ids(arguments)
        query = filters.runs(arguments.text("filter"), arguments.texts("order_by"))
        if not within:
            return {}
        token = arguments.text("page_token")
        found, token = await self._runs.find(caller, query, within, page_size=size, page_token=token, view=view)
        pieces = []
        for start in range(0, len(found), _PART):
            pieces += await self._written(caller, found[start : start + _PART])
        if not pieces:
            return {}
        pieces[0] = b'{"runs":[' + pieces[0]
        pieces[-1] += b'],"next_page_token":"%b"}' % token.encode() if token else b"]}"
        return b",".join(pieces)

    async def _written(self, caller: Caller, run_ids: Sequence[RunId]) -> list[bytes]:
        """These runs in JSON, without those that do not exist."""
        found = await self._runs.load(caller, run_ids)
        lineages = await self._lineages.of_runs(caller, run_ids) if found else {}
        return [orjson.dumps(shown(run, points, *datasets.shown(lineages.get(run.id)))) for run, points in found]

    async def _update(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id, status = ids.run_id(arguments), _status(arguments)
        end_ms = arguments.integer("end_time") if "end_time" in arguments else None
        name = arguments.text("run_name") or None
        return {"run_info": info(await self._runs.update(caller, run_id, name, status, end_ms))}

    async def _delete(self, caller: Caller, arguments: Arguments) -> Answer:
        # Clients have no word for force; what models' versions lose is told in the registry's history.
        await self._runs.delete(caller, ids.run_id(arguments), force=True)
        return {}

    async def _restore(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._runs.restore(caller, ids.run_id(arguments))
        return {}

    async def _log_param(self, caller: Caller, arguments: Arguments) -> Answer:
        await self._runs.log_params(caller, ids.run_id(arguments), dict([run_texts.param(arguments)]))
        return {}

    async def _set_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id, (key, value) = ids.run_id(arguments), run_texts.tag(arguments)
        if key == run_texts.RUN_NAME:
            await self._runs.update(caller, run_id, value or None)
        else:
            await self._runs.set_tags(caller, run_id, {key: value})
        return {}

    async def _delete_tag(self, caller: Caller, arguments: Arguments) -> Answer:
        run_id, key = ids.run_id(arguments), arguments.required("key")
        if key == run_texts.RUN_NAME:
            await self._runs.update(caller, run_id)  # a run is never without a name
        else:
            await self._runs.delete_tags(caller, run_id, [key])
        return {}

    async def _log_model(self, caller: Caller, arguments: Arguments) -> Answer:
        model = read(arguments.required("model_json"))
        await self._runs.change_tag(caller, ids.run_id(arguments), MODELS_TAG, lambda old: with_another(old, model))
        return {}


def shown(
    run: Run, points: str = "", inputs: Mapping[str, Any] = _NOTHING, outputs: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A run as it goes out, with its metrics' last points in JSON, its inputs and its outputs as they go out."""
    data: dict[str, Any] = {}
    if points:
        data["metrics"] = orjson.Fragment(points)
    if run.params:
        data["params"] = pairs(run.params)
    data["tags"] = pairs(run_texts.shown_tags(run))
    answer = {"info": info(run), "data": data, "inputs": inputs}
    if outputs is not None:
        answer["outputs"] = outputs
    return answer


def info(run: Run) -> dict[str, Any]:
    """A run's own fields as they go out."""
    run_id = format_run_id(run.id)
    answer = {
        "run_id": run_id,
        "run_uuid": run_id,
        "run_name": run.name,
        "experiment_id": str(run.experiment_id),
        "user_id": run.user,
        "status": run.status.name,
        "start_time": run.start_ms,
        "artifact_uri": locations.of_run(run),
        "lifecycle_stage": STAGE[run.lifecycle],
    }
    if run.end_ms is not None:
        answer["end_time"] = run.end_ms
    return answer


def _status(arguments: Arguments) -> RunStatus | None:
    """The status that is asked for, by name or by number; None when none is."""
    value = arguments.get("status")
    if value is None:
        return None
    name = value if isinstance(value, str) else ""
    number = integer(value)
    if name in RunStatus.__members__:
        return RunStatus[name]
    if number is None or number not in set(RunStatus):
        raise arguments.wrong("status", value, f"Value must be one of {', '.join(RunStatus.__members__)}")
    return RunStatus(number)
