"""Models of scikit-learn: autologged, logged, registered, loaded by every address; and what the registry keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Experiment
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split

THREE = int(mlflow.__version__.partition(".")[0]) >= 3

FRAME = load_iris(as_frame=True).data.rename(columns=lambda column: column.replace(" (cm)", "").replace(" ", "_"))
TARGET = load_iris(as_frame=True).target
# What a model needs is told, or MLflow would find it out in a process of its own for each.
TOLD = {"pip_requirements": ["scikit-learn"]}


@pytest.fixture
def model() -> LogisticRegression:
    return LogisticRegression(C=0.5, max_iter=500).fit(FRAME, TARGET)


Log = Callable[..., Any]


@pytest.fixture
def log(model: LogisticRegression, called: dict[str, Any]) -> Log:
    """Logs the model to the run that is active, with all it may be logged with."""

    def log(**more: Any) -> Any:
        signature = infer_signature(FRAME, model.predict(FRAME))
        return mlflow.sklearn.log_model(
            model, signature=signature, input_example=FRAME.head(3), **called, **TOLD, **more
        )

    return log


@pytest.fixture
def autolog() -> Iterator[Callable[..., None]]:
    """Switches scikit-learn's autologging on, for this test."""
    yield mlflow.sklearn.autolog
    mlflow.sklearn.autolog(disable=True)


def same(uri: str, model: LogisticRegression) -> bool:
    """Whether the model at this address says what the model says."""
    return bool(np.array_equal(mlflow.pyfunc.load_model(uri).predict(FRAME), model.predict(FRAME)))


def test_autologging(client: MlflowClient, autolog: Callable[..., None]) -> None:
    """As users have it: what the model needs is found out by MLflow."""
    autolog(log_input_examples=True, log_model_signatures=True, log_datasets=True)
    x_train, x_test, y_train, y_test = train_test_split(FRAME, TARGET, random_state=1)
    with mlflow.start_run() as run:
        model = LogisticRegression(max_iter=300).fit(x_train, y_train)
        score = model.score(x_test, y_test)
    run_id = run.info.run_id
    found = mlflow.get_run(run_id)
    assert found.data.params["max_iter"] == "300"
    assert found.data.metrics["training_accuracy_score"] == pytest.approx(model.score(x_train, y_train))
    assert found.data.metrics["LogisticRegression_score_x_test"] == pytest.approx(score)
    assert found.data.tags["estimator_name"] == "LogisticRegression"
    assert [tag.value for one in found.inputs.dataset_inputs for tag in one.tags] == ["train"]
    files = {file.path for file in client.list_artifacts(run_id)}
    assert {"estimator.html", "training_confusion_matrix.png"} <= files
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    assert np.array_equal(loaded.predict(x_test), model.predict(x_test))
    assert loaded.metadata.get_input_schema().input_names() == list(FRAME)
    assert list(loaded.metadata.load_input_example(None) if THREE else loaded.input_example) == list(FRAME)


def test_autologging_of_a_search(client: MlflowClient, experiment: Experiment, autolog: Callable[..., None]) -> None:
    autolog(log_models=False, max_tuning_runs=3)
    with mlflow.start_run() as run:
        search = GridSearchCV(LogisticRegression(max_iter=500), {"C": [0.01, 0.1, 1, 10]}, cv=2)
        search.fit(FRAME, TARGET)
    parent = mlflow.get_run(run.info.run_id)
    assert parent.data.params["best_C"] == str(search.best_params_["C"])
    assert parent.data.metrics["best_cv_score"] == pytest.approx(search.best_score_)
    children = mlflow.search_runs(
        [experiment.experiment_id],
        f"tags.mlflow.parentRunId = '{run.info.run_id}'",
        order_by=["metrics.mean_test_score DESC"],
    )
    assert len(children) == 3
    assert children["metrics.mean_test_score"][0] == pytest.approx(search.best_score_)
    assert children["params.C"][0] == str(search.best_params_["C"])
    assert set(children["status"]) == {"FINISHED"}
    assert "cv_results.csv" in {file.path for file in client.list_artifacts(run.info.run_id)}


def test_a_registered_model_is_loaded_by_every_address(
    client: MlflowClient, model: LogisticRegression, log: Log, name: str
) -> None:
    with mlflow.start_run() as run:
        mlflow.log_metric("accuracy", 0.9)
        logged = log(registered_model_name=name)
    with mlflow.start_run():
        log(registered_model_name=name)
    version = client.get_model_version(name, "1")
    assert (version.run_id, version.status, version.current_stage) == (run.info.run_id, "READY", "None")
    assert client.get_registered_model(name).latest_versions[0].version in {"2", 2}
    client.set_registered_model_alias(name, "champion", "1")
    client.transition_model_version_stage(name, "2", "Production")
    addresses = [f"models:/{name}/1", f"models:/{name}/2", f"models:/{name}/latest", f"models:/{name}/Production"]
    addresses += [f"models:/{name}@champion", f"runs:/{run.info.run_id}/model", logged.model_uri]
    for address in addresses:
        assert same(address, model), address
    loaded = mlflow.sklearn.load_model(f"models:/{name}@champion")
    assert loaded.get_params()["C"] == 0.5
    info = mlflow.models.get_model_info(f"models:/{name}@champion")
    assert info.signature.inputs.input_names() == list(FRAME)
    assert info.run_id == run.info.run_id
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1"))
    assert "MLmodel" in {file.name for file in files.iterdir()}
    assert client.get_model_version_download_uri(name, "1")
    for missing in (f"models:/{name}@nobody", f"models:/{name}/9", f"models:/{name}/Staging", f"models:/{name}x/1"):
        with pytest.raises(MlflowException):
            mlflow.pyfunc.load_model(missing)


def test_what_was_logged_is_registered(client: MlflowClient, model: LogisticRegression, log: Log, name: str) -> None:
    with mlflow.start_run() as run:
        log()
    first = mlflow.register_model(f"runs:/{run.info.run_id}/model", name, tags={"by": "hand"})
    assert (int(first.version), first.tags, first.run_id) == (1, {"by": "hand"}, run.info.run_id)
    second = mlflow.register_model(f"runs:/{run.info.run_id}/model", name)
    assert int(second.version) == 2
    copied = client.copy_model_version(f"models:/{name}/1", name + "-prod")
    assert int(copied.version) == 1
    for address in (f"models:/{name}/1", f"models:/{name}/2", f"models:/{name}-prod/1"):
        assert same(address, model), address


def test_the_registry(client: MlflowClient, experiment: Experiment, name: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("weights", "model/weights.txt")
    run_id, source = run.info.run_id, f"{run.info.artifact_uri}/model"
    client.create_registered_model(name, tags={"team": "vision"}, description="of tests")
    with pytest.raises(MlflowException) as caught:
        client.create_registered_model(name)
    assert caught.value.error_code == "RESOURCE_ALREADY_EXISTS"
    for number in (1, 2, 3):
        made = client.create_model_version(name, source, run_id, tags={"n": str(number)}, description=f"no. {number}")
        assert int(made.version) == number
    client.set_registered_model_tag(name, "team", "speech")
    client.set_registered_model_tag(name, "other", "x")
    client.delete_registered_model_tag(name, "other")
    client.set_model_version_tag(name, "2", "checked", "yes")
    client.delete_model_version_tag(name, "2", "n")
    client.update_model_version(name, "2", "the second")
    client.update_registered_model(name, "of other tests")
    found = client.get_registered_model(name)
    assert (found.description, found.tags) == ("of other tests", {"team": "speech"})
    second = client.get_model_version(name, "2")
    assert (second.description, second.tags) == ("the second", {"checked": "yes"})

    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "staging")
    client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
    assert {int(one.version): one.current_stage for one in client.search_model_versions(f"name = '{name}'")} == {
        1: "Archived",
        2: "Production",
        3: "None",
    }
    assert [int(one.version) for one in client.get_latest_versions(name, ["Production"])] == [2]
    assert {int(one.version) for one in client.get_latest_versions(name)} == {1, 2, 3}

    client.set_registered_model_alias(name, "champion", "3")
    client.set_registered_model_alias(name, "champion", "2")
    assert int(client.get_model_version_by_alias(name, "champion").version) == 2
    assert client.get_registered_model(name).aliases == {"champion": "2"}
    assert client.get_model_version(name, "2").aliases == ["champion"]
    client.delete_registered_model_alias(name, "champion")
    with pytest.raises(MlflowException):
        client.get_model_version_by_alias(name, "champion")

    client.set_registered_model_alias(name, "last", "3")
    client.delete_model_version(name, "3")
    assert client.get_registered_model(name).aliases == {}
    with pytest.raises(MlflowException) as caught:
        client.get_model_version(name, "3")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    # A number is never given twice.
    assert int(client.create_model_version(name, source, run_id).version) == 4

    client.rename_registered_model(name, name + "-renamed")
    assert int(client.get_model_version(name + "-renamed", "2").version) == 2
    with pytest.raises(MlflowException):
        client.get_registered_model(name)
    client.delete_registered_model(name + "-renamed")
    with pytest.raises(MlflowException) as caught:
        client.get_registered_model(name + "-renamed")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert client.search_model_versions(f"run_id = '{run_id}'") == []


def test_the_registry_is_searched(client: MlflowClient, name: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("weights", "model/weights.txt")
    for number in range(5):
        client.create_registered_model(f"{name}-{number}", tags={"odd": str(number % 2)})
        for version in range(number):
            client.create_model_version(
                f"{name}-{number}", f"{run.info.artifact_uri}/model", run.info.run_id, tags={"v": str(version)}
            )
    mine = f"name LIKE '{name}-%'"
    first = client.search_registered_models(mine, max_results=3, order_by=["name DESC"])
    assert [found.name[-1] for found in first] == ["4", "3", "2"]
    rest = client.search_registered_models(mine, max_results=3, order_by=["name DESC"], page_token=first.token)
    assert ([found.name[-1] for found in rest], rest.token or None) == (["1", "0"], None)
    odd = mlflow.search_registered_models(filter_string=f"{mine} AND tags.odd = '1'")
    assert [found.name[-1] for found in odd] == ["1", "3"]
    versions = client.search_model_versions(f"name = '{name}-4'", order_by=["version_number ASC"])
    assert [int(found.version) for found in versions] == [1, 2, 3, 4]
    assert len(client.search_model_versions(f"run_id = '{run.info.run_id}'")) == 10
    assert {found.name[-1] for found in client.search_model_versions(f"{mine} AND tags.v = '2'")} == {"3", "4"}
    order = ["name ASC", "version_number DESC"]
    page = client.search_model_versions(mine, max_results=4, order_by=order)
    assert [(found.name[-1], int(found.version)) for found in page] == [("1", 1), ("2", 2), ("2", 1), ("3", 3)]
    after = client.search_model_versions(mine, max_results=10, order_by=order, page_token=page.token)
    assert len(after) == 6


def test_logging_over_what_a_version_stands_on(
    client: MlflowClient, model: LogisticRegression, called: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """MLflow 2 writes a model into the run: the same path again, with other bytes."""
    with mlflow.start_run() as run:
        mlflow.sklearn.log_model(model, registered_model_name=name, **called, **TOLD)
        other = LogisticRegression(C=2.5, max_iter=500).fit(FRAME, TARGET)
        mlflow.sklearn.log_model(other, registered_model_name=name, **called, **TOLD)
        (tmp_path / "weights.txt").write_text("first")
        mlflow.log_artifacts(str(tmp_path), "plain")
        client.create_model_version(name, f"{run.info.artifact_uri}/plain", run.info.run_id)
        (tmp_path / "weights.txt").write_text("second")
        mlflow.log_artifacts(str(tmp_path), "plain")
    assert mlflow.sklearn.load_model(f"models:/{name}/2").C == 2.5
    assert mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/model").C == 2.5
    assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/plain/weights.txt") == "second"
    # In MLflow 3 each model that is logged has a place of its own.
    assert (0.5 if THREE else 2.5) == mlflow.sklearn.load_model(f"models:/{name}/1").C


def test_a_run_with_a_registered_version_is_deleted(
    client: MlflowClient, model: LogisticRegression, log: Log, name: str
) -> None:
    with mlflow.start_run() as run:
        log(registered_model_name=name)
    mlflow.delete_run(run.info.run_id)
    assert client.get_run(run.info.run_id).info.lifecycle_stage == "deleted"
    assert client.get_model_version(name, "1").run_id == run.info.run_id
    client.restore_run(run.info.run_id)
    assert same(f"models:/{name}/1", model)
    client.delete_registered_model(name)


class Doubles(mlflow.pyfunc.PythonModel):
    """A model that is a piece of Python with a file."""

    def load_context(self, context: Any) -> None:
        self.factor = json.loads(Path(context.artifacts["factor"]).read_text())

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        return model_input * self.factor


def test_a_model_of_python(called: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "factor.json").write_text("2")
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(
            python_model=Doubles(),
            artifacts={"factor": str(tmp_path / "factor.json")},
            signature=infer_signature(frame, frame),
            pip_requirements=["pandas"],
            **called,
        )
    loaded = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert list(loaded.predict(frame)["x"]) == [2.0, 4.0]


@pytest.mark.mlflow3
def test_logged_models(client: MlflowClient, experiment: Experiment, log: Log) -> None:
    with mlflow.start_run() as run:
        logged = log(params={"depth": 3}, tags={"kind": "linear"})
        data = mlflow.data.from_pandas(FRAME, name="iris")
        mlflow.log_metric("accuracy", 0.5, step=1, model_id=logged.model_id)
        mlflow.log_metric("accuracy", 0.75, step=2, model_id=logged.model_id, dataset=data)
        log(step=7)
    found = mlflow.get_logged_model(logged.model_id)
    assert (found.name, found.status.name, found.source_run_id) == ("model", "READY", run.info.run_id)
    assert (found.params["depth"], found.tags["kind"]) == ("3", "linear")
    assert {(metric.key, metric.value, metric.dataset_name) for metric in found.metrics} >= {("accuracy", 0.75, "iris")}
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert {one.step: one.model_id == logged.model_id for one in outputs} == {0: True, 7: False}
    where = [experiment.experiment_id]
    assert len(client.search_logged_models(where)) == 2
    best = client.search_logged_models(where, filter_string="metrics.accuracy > 0.6 AND params.depth = '3'")
    assert [one.model_id for one in best] == [logged.model_id]
    client.set_logged_model_tags(logged.model_id, {"kind": "other", "more": "x"})
    client.delete_logged_model_tag(logged.model_id, "more")
    assert mlflow.get_logged_model(logged.model_id).tags["kind"] == "other"
    assert "more" not in mlflow.get_logged_model(logged.model_id).tags
    page = client.search_logged_models(where, max_results=1, order_by=[{"field_name": "creation_timestamp"}])
    rest = client.search_logged_models(
        where, max_results=1, order_by=[{"field_name": "creation_timestamp"}], page_token=page.token
    )
    assert {page[0].model_id, rest[0].model_id} == {one.model_id for one in client.search_logged_models(where)}
    table = mlflow.search_logged_models(where, output_format="pandas")
    assert len(table) == 2
    external = mlflow.create_external_model("somewhere else", tags={"where": "abroad"})
    assert external.status.name == "READY"
    client.delete_logged_model(external.model_id)
    assert len(client.search_logged_models(where)) == 2
    half = mlflow.initialize_logged_model("half made")
    assert half.status.name == "PENDING"
    assert mlflow.finalize_logged_model(half.model_id, "FAILED").status.name == "FAILED"
    with pytest.raises(MlflowException) as caught:
        mlflow.get_logged_model("m-" + "0" * 32)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_evaluating(model: LogisticRegression, log: Log) -> None:
    with mlflow.start_run() as run:
        logged = log()
        data = FRAME.assign(target=TARGET)
        evaluate = mlflow.models.evaluate if THREE else mlflow.evaluate
        told = evaluate(
            logged.model_uri,
            data,
            targets="target",
            model_type="classifier",
            evaluators="default",
            evaluator_config={"log_explainer": False, "log_model_explainability": False},
        )
    assert mlflow.get_run(run.info.run_id).data.metrics["accuracy_score"] == pytest.approx(
        told.metrics["accuracy_score"]
    )
    assert told.artifacts


def test_waiting_for_a_version(client: MlflowClient, name: str) -> None:
    """A version is ready when it is made: nobody waits."""
    with mlflow.start_run() as run:
        mlflow.log_text("weights", "model/weights.txt")
    client.create_registered_model(name)
    begun = time.monotonic()
    made = client.create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id, await_creation_for=60)
    assert made.status == "READY"
    assert time.monotonic() - begun < 30
