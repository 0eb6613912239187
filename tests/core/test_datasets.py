"""The rules of what runs take in and bring forth."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from penstock_server.core.datasets import Datasets
from penstock_server.core.experiments import Experiments
from penstock_server.core.runs import Runs
from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.datasets import Dataset, DatasetInput, DatasetSummary, Lineage, ModelOutput
from penstock_server.model.errors import InvalidArgument, NotActive, NotFound
from penstock_server.model.experiments import DEFAULT_EXPERIMENT, ExperimentId
from penstock_server.model.runs import NewRun, RunId
from penstock_server.postgres.database import Database

CALLER, STRANGER = Caller("tester", WorkspaceId(1)), Caller("stranger", WorkspaceId(2))


@pytest.fixture
def datasets(db: Database) -> Datasets:
    return Datasets(db)


@pytest.fixture
def runs(db: Database) -> Runs:
    return Runs(db, lambda _: None)


async def make(runs: Runs, **given: Any) -> RunId:
    return (await runs.create(CALLER, NewRun(**given))).id


def taken(name: str = "d", digest: str = "1", *, schema: str | None = None, **tags: str) -> DatasetInput:
    return DatasetInput(Dataset(name, digest, "local", "{}", schema), tags)


def used(context: str, name: str = "d", digest: str = "1") -> DatasetInput:
    return DatasetInput(Dataset(name, digest), {"mlflow.data.context": context})


async def test_in_the_order_in_which_it_was_taken_in(datasets: Datasets, runs: Runs) -> None:
    one, two, none = [await make(runs) for _ in range(3)]
    first, second = taken("z", schema="{}", b="1", a="2"), taken("a")
    await datasets.log_inputs(CALLER, one, [first], ["m-2", "m-1"])
    await datasets.log_inputs(CALLER, one, [second])
    await datasets.log_outputs(CALLER, one, [ModelOutput("m-3", 2), ModelOutput("m-4", 1)])
    await datasets.log_inputs(CALLER, two, [taken("z", schema="{}")])
    found = await datasets.of_runs(CALLER, [one, two, none])
    assert found[one] == Lineage([first, second], ["m-1", "m-2"], [ModelOutput("m-4", 1), ModelOutput("m-3", 2)])
    assert list(found[one].datasets[0].tags) == ["a", "b"]
    assert found[two] == Lineage([taken("z", schema="{}")])
    assert none not in found
    assert await datasets.of_runs(STRANGER, [one]) == {}


async def test_again_is_as_once(datasets: Datasets, runs: Runs) -> None:
    run_id = await make(runs)
    for _ in range(2):
        await datasets.log_inputs(CALLER, run_id, [taken(a="1"), taken(a="2")], ["m-1", "m-1"])
        await datasets.log_outputs(CALLER, run_id, [ModelOutput("m-1", 3)])
    await datasets.log_inputs(CALLER, run_id, [taken(schema="other", a="3", b="4")])
    found = (await datasets.of_runs(CALLER, [run_id]))[run_id]
    assert found == Lineage([taken(a="1")], ["m-1"], [ModelOutput("m-1", 3)])
    await datasets.log_outputs(CALLER, run_id, [ModelOutput("m-1", 4)])
    assert (await datasets.of_runs(CALLER, [run_id]))[run_id].outputs == [ModelOutput("m-1", 4)]


async def test_many_runs_at_once_take_in_the_same(datasets: Datasets, runs: Runs) -> None:
    run_ids = [await make(runs) for _ in range(8)]
    both = [taken("a"), taken("b")]
    await asyncio.gather(
        *(datasets.log_inputs(CALLER, run_id, both[:: 1 if n % 2 else -1]) for n, run_id in enumerate(run_ids))
    )
    found = await datasets.of_runs(CALLER, run_ids)
    assert [len(found[run_id].datasets) for run_id in run_ids] == [2] * 8


async def test_a_dataset_is_known_once_in_an_experiment(db: Database, datasets: Datasets, runs: Runs) -> None:
    other = await Experiments(db).create(CALLER, "other")
    here, there = await make(runs), await make(runs, experiment_id=other.id)
    await datasets.log_inputs(CALLER, here, [taken(schema="here")])
    await datasets.log_inputs(CALLER, there, [taken(schema="there")])
    found = await datasets.of_runs(CALLER, [here, there])
    assert [found[run_id].datasets[0].dataset.schema for run_id in (here, there)] == ["here", "there"]


@pytest.mark.parametrize(
    "wrong",
    [
        taken(""),
        taken("x" * 501),
        taken("d\0"),
        taken("d", ""),
        taken("d", "x" * 37),
        taken(schema="x" * 1_048_576),
        DatasetInput(Dataset("d", "1", source="x" * 65_536)),
        DatasetInput(Dataset("d", "1", profile="x" * 16_777_216)),
        taken(**{"x" * 256: "v"}),
        taken(x="v" * 501),
    ],
)
async def test_what_cannot_be(datasets: Datasets, runs: Runs, wrong: DatasetInput) -> None:
    run_id = await make(runs)
    with pytest.raises(InvalidArgument):
        await datasets.log_inputs(CALLER, run_id, [taken(), wrong])
    assert await datasets.of_runs(CALLER, [run_id]) == {}


async def test_models_that_cannot_be(datasets: Datasets, runs: Runs) -> None:
    run_id = await make(runs)
    for model_ids in ([""], ["x" * 251], [str(number) for number in range(1_001)]):
        with pytest.raises(InvalidArgument):
            await datasets.log_inputs(CALLER, run_id, [], model_ids)
    with pytest.raises(InvalidArgument):
        await datasets.log_outputs(CALLER, run_id, [ModelOutput("m-1", 2**63)])


async def test_a_run_that_takes_nothing_in(datasets: Datasets, runs: Runs) -> None:
    run_id, nobody = await make(runs), RunId(uuid.UUID(int=7))
    await datasets.log_inputs(CALLER, run_id, [])
    await datasets.log_outputs(CALLER, run_id, [])
    with pytest.raises(NotFound):
        await datasets.log_inputs(CALLER, nobody, [taken()])
    with pytest.raises(NotFound):
        await datasets.log_outputs(STRANGER, run_id, [ModelOutput("m-1")])
    await runs.delete(CALLER, run_id)
    with pytest.raises(NotActive):
        await datasets.log_inputs(CALLER, run_id, [taken()])
    with pytest.raises(NotActive):
        await datasets.log_outputs(CALLER, run_id, [])


async def test_summaries(db: Database, datasets: Datasets, runs: Runs) -> None:
    other = await Experiments(db).create(CALLER, "other")
    for experiment_id, each in (
        (DEFAULT_EXPERIMENT, taken("a")),
        (DEFAULT_EXPERIMENT, used("train", "a")),
        (DEFAULT_EXPERIMENT, used("train", "a")),
        (other.id, used("eval", "b", "2")),
    ):
        await datasets.log_inputs(CALLER, await make(runs, experiment_id=experiment_id), [each])
    of_default = [
        DatasetSummary(DEFAULT_EXPERIMENT, "a", "1", None),
        DatasetSummary(DEFAULT_EXPERIMENT, "a", "1", "train"),
    ]
    assert await datasets.summaries(CALLER, [DEFAULT_EXPERIMENT]) == of_default
    of_other = DatasetSummary(other.id, "b", "2", "eval")
    assert await datasets.summaries(CALLER, [other.id, DEFAULT_EXPERIMENT, ExperimentId(99)]) == [*of_default, of_other]
    assert await datasets.summaries(STRANGER, [DEFAULT_EXPERIMENT]) == []
