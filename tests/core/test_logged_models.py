"""The rules of logged models."""

from __future__ import annotations

import asyncio
import math
import re
import uuid
from typing import Any

import pytest

from penstock_server.core import logged_models as rules
from penstock_server.core.experiments import Experiments
from penstock_server.core.logged_models import LoggedModels
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import (
    InvalidArgument,
    InvalidFilter,
    InvalidPageToken,
    NotActive,
    NotFound,
    ParamChanged,
)
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.logged_models import (
    DatasetFilter,
    LoggedModel,
    LoggedModelId,
    LoggedModelStatus,
    ModelOrder,
    ModelPoint,
    NewLoggedModel,
    format_model_id,
)
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres import search_logged_models
from penstock_server.postgres.database import Database

CALLER, STRANGER = Caller("tester", WorkspaceId(1)), Caller("stranger", WorkspaceId(2))
NOBODY = LoggedModelId(uuid.UUID(int=7))


@pytest.fixture
def models(db: Database) -> LoggedModels:
    return LoggedModels(db)


@pytest.fixture
def run_id(db: Database, run: Any) -> RunId:
    """A run to log from."""
    return RunId(run(Runs(db, lambda _: None).create(CALLER, NewRun())).id)


async def make(models: LoggedModels, name: str = "", **given: Any) -> LoggedModel:
    return await models.create(CALLER, NewLoggedModel(DEFAULT_EXPERIMENT, name, **given))


def point(model: LoggedModel, value: float, key: str = "acc", **given: Any) -> ModelPoint:
    return ModelPoint(format_model_id(model.id), key, value, **{"time_ms": 1, "step": 1} | given)


async def found(models: LoggedModels, filter_text: str = "", **asked: Any) -> list[str]:
    """The names of those on the first page."""
    page, _ = await models.search(CALLER, [DEFAULT_EXPERIMENT], filter=filter_text, **asked)
    return [each.name for each in page]


async def test_made_and_found(models: LoggedModels) -> None:
    made = await make(
        models, "iris", model_type="tree", source_run_id="r", params={"b": "2", "a": "1"}, tags={"t": "v"}
    )
    assert made.status is LoggedModelStatus.PENDING
    assert (made.name, made.model_type, made.source_run_id) == ("iris", "tree", "r")
    assert (list(made.params.items()), made.tags, made.metrics) == ([("a", "1"), ("b", "2")], {"t": "v"}, [])
    assert made.created_ms == made.updated_ms > 1_700_000_000_000
    assert await models.get(CALLER, made.id) == made


async def test_a_name_is_made_up(models: LoggedModels) -> None:
    assert re.fullmatch(r"\w+-\w+-\d+", (await make(models)).name)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"name": f"a{character}b"} for character in "/:.%\"'\0"),
        {"name": "x" * 501},
        {"model_type": "x" * 501},
        {"source_run_id": "x" * 251},
        {"params": {"": "v"}},
        {"params": {"k" * 256: "v"}},
        {"tags": {"k": "v" * 65_536}},
        {"tags": {str(number): "v" for number in range(1_001)}},
    ],
)
async def test_what_cannot_be(models: LoggedModels, wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        await make(models, **wrong)


async def test_of_an_experiment_that_is_not_there(db: Database, models: LoggedModels) -> None:
    with pytest.raises(NotFound):
        await models.create(CALLER, NewLoggedModel(ExperimentId(99)))
    experiment = await Experiments(db).create(CALLER, "deleted")
    await Experiments(db).delete(CALLER, experiment.id)
    with pytest.raises(NotActive):
        await models.create(CALLER, NewLoggedModel(experiment.id))


async def test_of_another_workspace_nothing_is_seen_or_changed(
    db: Database, models: LoggedModels, run_id: RunId
) -> None:
    model = await make(models)
    for call in (
        models.get(STRANGER, model.id),
        models.finalize(STRANGER, model.id, LoggedModelStatus.READY),
        models.delete(STRANGER, model.id),
        models.set_tags(STRANGER, model.id, {"a": "b"}),
        models.delete_tag(STRANGER, model.id, "a"),
        models.log_params(STRANGER, model.id, {"a": "b"}),
        models.log_metrics(STRANGER, run_id, [point(model, 1.0)]),
    ):
        with pytest.raises(NotFound):
            await call
    assert await models.search(STRANGER, [DEFAULT_EXPERIMENT]) == ([], "")
    assert await models.get(CALLER, model.id) == model


async def test_finalized(models: LoggedModels) -> None:
    made = await make(models)
    ready = await models.finalize(CALLER, made.id, LoggedModelStatus.READY)
    assert (ready.status, ready.updated_ms >= made.updated_ms) == (LoggedModelStatus.READY, True)
    assert await models.get(CALLER, made.id) == ready
    with pytest.raises(NotFound):
        await models.finalize(CALLER, NOBODY, LoggedModelStatus.READY)


async def test_a_deleted_one_is_not_found_and_can_still_be_changed(models: LoggedModels) -> None:
    made = await make(models, "gone")
    await models.delete(CALLER, made.id)
    deleted = await models.get(CALLER, made.id, deleted=True)
    await models.delete(CALLER, made.id)
    assert await models.get(CALLER, made.id, deleted=True) == deleted
    with pytest.raises(NotFound):
        await models.get(CALLER, made.id)
    assert await found(models) == []
    await models.set_tags(CALLER, made.id, {"a": "b"})
    assert (await models.finalize(CALLER, made.id, LoggedModelStatus.READY)).tags == {"a": "b"}
    with pytest.raises(NotFound):
        await models.delete(CALLER, NOBODY)


async def test_tags(models: LoggedModels) -> None:
    made = await make(models, tags={"a": "1"})
    await models.set_tags(CALLER, made.id, {"a": "2", "b": "3"})
    await models.set_tags(CALLER, made.id, {})
    await models.delete_tag(CALLER, made.id, "b")
    assert (await models.get(CALLER, made.id)).tags == {"a": "2"}
    with pytest.raises(NotFound, match="tag 'b'"):
        await models.delete_tag(CALLER, made.id, "b")
    with pytest.raises(NotFound, match="logged model"):
        await models.set_tags(CALLER, NOBODY, {"a": "2"})


async def test_params_are_written_once(models: LoggedModels) -> None:
    made = await make(models, params={"a": "1"})
    await models.log_params(CALLER, made.id, {"a": "1", "b": "2"})
    with pytest.raises(ParamChanged):
        await models.log_params(CALLER, made.id, {"c": "3", "b": "other"})
    assert (await models.get(CALLER, made.id)).params == {"a": "1", "b": "2"}


async def test_metrics_are_recorded_once_and_those_of_another_dataset_are_others(
    models: LoggedModels, run_id: RunId
) -> None:
    made, other = await make(models), await make(models)
    points = [
        point(made, 0.5),
        point(made, 0.5, dataset_name="d", dataset_digest="1"),
        point(made, math.nan),
        point(made, math.inf, time_ms=2),
        point(other, 0.5),
    ]
    await models.log_metrics(CALLER, run_id, [*points, points[2]])
    await asyncio.gather(*(models.log_metrics(CALLER, run_id, points) for _ in range(3)))
    metrics = (await models.get(CALLER, made.id)).metrics
    assert [(str(each.value), each.time_ms, each.dataset_name, each.dataset_digest) for each in metrics] == [
        ("0.5", 1, "", ""),
        ("nan", 1, "", ""),
        ("0.5", 1, "d", "1"),
        ("inf", 2, "", ""),
    ]
    assert {each.run_id for each in metrics} == {run_id}
    assert len((await models.get(CALLER, other.id)).metrics) == 1


async def test_metrics_that_cannot_be(db: Database, models: LoggedModels, run_id: RunId) -> None:
    made = await make(models)
    right = point(made, 1.0)
    for wrong in (
        right._replace(model_id=format_model_id(NOBODY)),
        right._replace(model_id="nonsense"),
        right._replace(key="../acc"),
        right._replace(time_ms=-1),
        right._replace(dataset_digest="x" * 37),
    ):
        with pytest.raises(InvalidArgument):
            await models.log_metrics(CALLER, run_id, [right, wrong])
    assert (await models.get(CALLER, made.id)).metrics == []
    await Runs(db, lambda _: None).delete(CALLER, run_id)
    with pytest.raises(NotActive):
        await models.log_metrics(CALLER, run_id, [right])
    with pytest.raises(NotFound):
        await models.log_metrics(CALLER, RunId(uuid.UUID(int=7)), [right])


async def test_searches(models: LoggedModels, run_id: RunId) -> None:
    a = await make(models, "a", model_type="tree", source_run_id=run_id.hex, params={"lr": "0.1"}, tags={"t": "x"})
    b = await make(models, "b", params={"lr": "0.2"})
    await models.finalize(CALLER, b.id, LoggedModelStatus.READY)
    await models.log_metrics(CALLER, run_id, [point(a, 0.5), point(a, 0.9, step=2), point(b, math.nan)])
    for filter_text, names in {
        "": "ba",
        "name = 'a'": "a",
        "name IN ('a', 'c') OR status = 'ready'": "ba",
        "attributes.status = 'LOGGED_MODEL_READY'": "b",
        "NOT status = 'READY'": "a",
        f"model_id = '{format_model_id(a.id)}'": "a",
        "model_id LIKE 'm-%'": "ba",
        f"source_run_id = '{run_id.hex}'": "a",
        "model_type != 'tree'": "b",
        "creation_timestamp > 5 AND last_updated_timestamp > 5": "ba",
        "params.lr = '0.1'": "a",
        "params.lr LIKE '0.%' AND tags.t = 'x'": "a",
        "tags.t IS NULL": "b",
        "metrics.acc > 0.8": "a",
        "metrics.acc = 0.5": "a",  # at an earlier step
        "metrics.acc > 0.95": "",
        "metrics.acc != 7": "ba",
        "experiment_id = '0'": "ba",
        "experiment_id = 1": "",
    }.items():
        assert "".join(await found(models, filter_text)) == names, filter_text
    with pytest.raises(InvalidFilter):
        await found(models, "nothing = 'a'")
    assert await models.search(CALLER, []) == ([], "")
    assert await models.search(CALLER, [ExperimentId(1), ExperimentId(99)]) == ([], "")


async def test_only_metrics_on_some_datasets_count(models: LoggedModels, run_id: RunId) -> None:
    a, b, _ = [await make(models, name) for name in "abc"]
    on = {"dataset_name": "d", "dataset_digest": "1"}
    await models.log_metrics(CALLER, run_id, [point(a, 0.1, **on), point(a, 0.9, time_ms=2), point(b, 0.5, **on)])
    await models.log_metrics(CALLER, run_id, [point(b, 0.7, dataset_name="d", dataset_digest="2", time_ms=3)])
    one, any_of_name = DatasetFilter("d", "1"), DatasetFilter("d")
    assert await found(models, datasets=[one]) == ["b", "a"]
    assert await found(models, datasets=[DatasetFilter("d", "2"), DatasetFilter("e")]) == ["b"]
    assert await found(models, "metrics.acc > 0.6") == ["b", "a"]
    assert await found(models, "metrics.acc > 0.6", datasets=[any_of_name]) == ["b"]
    assert await found(models, "metrics.acc > 0.6", datasets=[one]) == []
    for dataset, names in ((DatasetFilter(""), ["b", "a", "c"]), (one, ["a", "b", "c"])):
        assert await found(models, order_by=[ModelOrder("metrics.acc", dataset=dataset)]) == names
    both = [ModelOrder("metrics.acc", dataset=one), ModelOrder("metrics.acc", descending=True)]
    assert await found(models, order_by=both) == ["a", "b", "c"]


async def test_orders_and_pages(models: LoggedModels, run_id: RunId) -> None:
    values = {"a": 0.5, "b": 0.1, "c": math.nan, "d": None, "e": 0.5}
    for name, value in values.items():
        model = await make(models, name)
        if value is not None:
            await models.log_metrics(CALLER, run_id, [point(model, 7.0, time_ms=0, step=9), point(model, value)])
    for order_by, names in (
        ([], "edcba"),
        ([ModelOrder("name")], "abcde"),
        ([ModelOrder("creation_timestamp_ms"), ModelOrder("creation_time", True)], "abcde"),
        ([ModelOrder("metrics.acc")], "beacd"),
        ([ModelOrder("metrics.acc", True)], "eabcd"),
        ([ModelOrder("status"), ModelOrder("model_type"), ModelOrder("name", True)], "edcba"),
    ):
        told, token = "", ""
        while True:
            page, token = await models.search(
                CALLER, [DEFAULT_EXPERIMENT], order_by=order_by, page_size=2, page_token=token
            )
            told += "".join(each.name for each in page)
            if not token:
                break
        assert told == names
    _, token = await models.search(CALLER, [DEFAULT_EXPERIMENT], page_size=2)
    with pytest.raises(InvalidPageToken):
        await models.search(CALLER, [DEFAULT_EXPERIMENT], filter="name = 'a'", page_size=2, page_token=token)
    for field in ("params.a", "nothing", "", "metrics."):
        with pytest.raises(InvalidArgument, match="order_by"):
            await found(models, order_by=[ModelOrder(field)])
    with pytest.raises(InvalidArgument, match="order_by"):
        await found(models, order_by=[ModelOrder("name")] * 11)


async def test_long_models_make_short_pages(models: LoggedModels, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        await make(models, name, params={"long": "x" * 1000})
    monkeypatch.setattr(search_logged_models, "_PAGE_BYTES", 1500)
    page, token = await models.search(CALLER, [DEFAULT_EXPERIMENT])
    assert ([each.name for each in page], bool(token)) == (["c", "b"], True)
    page, token = await models.search(CALLER, [DEFAULT_EXPERIMENT], page_token=token)
    assert ([each.name for each in page], token) == (["a"], "")
    monkeypatch.setattr(rules, "PAGE_LIMIT", 1)
    assert await found(models) == ["c"]
