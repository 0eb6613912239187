"""Versions of registered models over MLflow's REST API: what they come from, where their bytes are, their stages."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from asking import Asking, Told

import penstock
from penstock import Client
from servers import ServerProcess

HERE = "model-versions"
NOBODY = "0" * 32


@dataclass(frozen=True)
class Place:
    """A registered model, and a run and a logged model of one experiment."""

    name: str
    experiment_id: str
    run_id: str
    model_id: str

    @property
    def of_run(self) -> str:
        return f"mlflow-artifacts:/{self.experiment_id}/{self.run_id}/artifacts"

    @property
    def of_model(self) -> str:
        return f"mlflow-artifacts:/{self.experiment_id}/models/{self.model_id}/artifacts"

    def fill(self, text: str) -> str:
        """A source with R for the run, M for the logged model and so on."""
        for letter, value in (
            ("{runs}", self.of_run),
            ("{models}", self.of_model),
            ("{e}", self.experiment_id),
            ("{r}", self.run_id),
            ("{m}", self.model_id),
            ("{name}", self.name),
        ):
            text = text.replace(letter, value)
        return text


@pytest.fixture
def place(ask: Asking) -> Place:
    name = f"model-{uuid.uuid4().hex}"
    ask.ok("registered-models/create", name=name)
    return place_of(ask, name)


def place_of(ask: Asking, name: str, **fields: Any) -> Place:
    experiment_id = ask.ok("experiments/create", name=name, **fields)["experiment_id"]
    run_id = ask.ok("runs/create", experiment_id=experiment_id)["run"]["info"]["run_id"]
    logged = ask.ok("logged-models", experiment_id=experiment_id, name="logged", source_run_id=run_id)
    return Place(name, experiment_id, run_id, logged["model"]["info"]["model_id"])


def create(ask: Asking, place: Place, source: str, **fields: Any) -> Any:
    """A version; of the fields those that are told."""
    told = {key: place.fill(value) if isinstance(value, str) else value for key, value in fields.items()}
    return ask.ok(f"{HERE}/create", name=place.name, source=place.fill(source), **told)["model_version"]


def location(ask: Asking, name: str, version: str) -> str:
    return str(ask.read(f"{HERE}/get-download-uri", name=name, version=version)["artifact_uri"])


def refused(told: Told, status: int = 400, code: str = "INVALID_PARAMETER_VALUE") -> str:
    assert (told.status, told.code) == (status, code), told.body
    return str(told.json["message"])


def test_made_and_found(ask: Asking, place: Place) -> None:
    tags = [{"key": "a", "value": "b"}]
    made = create(ask, place, "s3://b/p", run_id="{r}", run_link="http://x", description="d", tags=tags)
    assert made == ask.read(f"{HERE}/get", name=place.name, version="1")["model_version"]
    assert 0 < made.pop("creation_timestamp") <= made.pop("last_updated_timestamp")
    assert made == {
        "name": place.name,
        "version": "1",
        "current_stage": "None",
        "description": "d",
        "source": "s3://b/p",
        "run_id": place.run_id,
        "run_link": "http://x",
        "status": "READY",
        "tags": tags,
    }
    plain = create(ask, place, "dbfs:/x")
    assert (plain["version"], plain["run_id"], plain["run_link"], plain["description"]) == ("2", "", "", "")


def test_what_is_not_there(ask: Asking, place: Place) -> None:
    asked = {"name": place.name, "version": "1", "stage": "Staging", "key": "k"}
    ways = [
        ("PATCH", "update"),
        ("POST", "transition-stage"),
        ("DELETE", "delete"),
        ("POST", "set-tag"),
        ("DELETE", "delete-tag"),
    ]
    for version in ("1", "0", "-1", "99999999999999"):
        for method, path in ways:
            refused(ask.json(method, f"{HERE}/{path}", {**asked, "version": version}), 404, "RESOURCE_DOES_NOT_EXIST")
        for path in ("get", "get-download-uri"):
            told = ask.get(f"{HERE}/{path}", name=place.name, version=version)
            told_of = refused(told, 404, "RESOURCE_DOES_NOT_EXIST")
            assert told_of == f"Model Version (name={place.name}, version={version}) not found"
    for version in ("x", "1.0", "", None):
        for method, path in ways:
            refused(ask.json(method, f"{HERE}/{path}", {**asked, "version": version}))
    refused(ask.post(f"{HERE}/create", name="no such", source="s3://b/p"), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(ask.post(f"{HERE}/create", source="s3://b/p"))
    refused(ask.post(f"{HERE}/create", name=place.name))


@pytest.mark.parametrize(
    ("source", "fields", "where"),
    [
        ("runs:/{r}/model", {"run_id": "{r}"}, "runs:/{r}/model"),
        ("{runs}/model", {"run_id": "{r}"}, "{runs}/model"),
        ("{runs}/model/", {"run_id": "{r}"}, "{runs}/model/"),
        ("{runs}", {"run_id": "{r}"}, "{runs}"),
        ("models:/{m}", {"model_id": "{m}"}, "{models}"),
        ("{models}", {"model_id": "{m}"}, "{models}"),
        ("{models}/a/b", {"model_id": "{m}"}, "{models}/a/b"),
        ("s3://b/p", {"model_id": "{m}"}, "s3://b/p"),
        ("s3://b/a//c", {}, "s3://b/a//c"),
        ("hdfs://host/p", {"run_id": NOBODY}, "hdfs://host/p"),
    ],
)
def test_a_source_is_told_as_it_was_given(
    ask: Asking, place: Place, source: str, fields: dict[str, str], where: str
) -> None:
    made = create(ask, place, source, **fields)
    assert made["source"] == place.fill(source)
    assert location(ask, place.name, "1") == place.fill(where)
    run_id = fields.get("run_id", "{r}" if "model_id" in fields else "")  # a logged model tells its run
    assert made["run_id"] == place.fill(run_id)
    assert made.get("model_id", "") == place.fill(fields.get("model_id", ""))
    # A copy has what it is a copy of.
    for ref in ("models:/{name}/1", "models:/{name}/latest", "models:/{name}/None"):
        copy = create(ask, place, ref)
        number = int(copy["version"]) - 1 if ref != "models:/{name}/1" else 1
        assert copy["source"] == f"models:/{place.name}/{number}"
        assert [copy.get(key) for key in ("run_id", "model_id")] == [made.get(key) for key in ("run_id", "model_id")]
    if not source.startswith("{runs}"):
        assert location(ask, place.name, "2") == place.fill(where)


def test_files_of_a_run_are_found_where_they_are(
    ask: Asking, server: ServerProcess, place: Place, tmp_path: Path
) -> None:
    with penstock.start_run(url=server.grpc_address, spool_dir=tmp_path) as run:
        run.log_text("weights", "model/weights")
        run.register_model(place.name, "model")
    model = f"mlflow-artifacts:/0/{run.id}/artifacts/model"
    assert ask.read(f"{HERE}/get", name=place.name, version="1")["model_version"]["source"] == f"runs:/{run.id}/model"
    create(ask, place, f"runs:/{run.id}/model/weights", run_id=run.id)
    create(ask, place, f"runs:/{run.id}/other", run_id=run.id)
    assert [location(ask, place.name, version) for version in ("1", "2")] == [model, f"{model}/weights"]
    # Of what is not there, clients look for a logged model of that name.
    assert location(ask, place.name, "3") == f"runs:/{run.id}/other"


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("runs:/{r}/model", {}),
        ("runs:/{r}/model", {"run_id": NOBODY}),
        ("runs:/{r}/model", {"model_id": "{m}"}),
        ("runs://host/{r}/model", {"run_id": "{r}"}),
        ("runs:/{r}/a/../b", {"run_id": "{r}"}),
        ("{runs}/model", {}),
        ("{runs}/model", {"run_id": NOBODY}),
        ("{runs}/model", {"model_id": "{m}"}),
        ("{runs}/../x", {"run_id": "{r}"}),
        ("{runs}x", {"run_id": "{r}"}),
        ("mlflow-artifacts:/0/{r}/artifacts/model", {"run_id": "{r}"}),
        ("mlflow-artifacts:/{e}/{r}", {"run_id": "{r}"}),
        ("mlflow-artifacts://host:1/{e}/{r}/artifacts/m", {"run_id": "{r}"}),
        ("http://host/api/2.0/mlflow-artifacts/artifacts/{e}/{r}/artifacts/m", {"run_id": "{r}"}),
        ("models:/{m}", {}),
        ("models:/{m}", {"run_id": "{r}"}),
        ("models://host/{m}", {"model_id": "{m}"}),
        ("{models}", {"run_id": "{r}"}),
        ("models:/{name}/9/8", {}),
        ("models:/{name}/Live", {}),
        ("models:/{name}@nobody", {}),
        ("dummy", {}),
        ("/etc/passwd", {"run_id": "{r}"}),
        ("file:///etc/passwd", {"run_id": "{r}"}),
        ("s3://b/a/../c", {}),
        ("s3://b/%2e%2e/c", {}),
        ("s3://b/%252e%252e/c", {}),
        ("s3://b/a/./c", {}),
        ("s3://bucket", {}),
        ("s3://b/a%00", {}),
        ("http://[::1", {}),
        ("s3://b/p", {"run_id": "no id"}),
        ("", {}),
        (" ", {}),
    ],
)
def test_sources_that_are_refused(ask: Asking, place: Place, source: str, fields: dict[str, str]) -> None:
    told = {key: place.fill(value) for key, value in fields.items()}
    refused(ask.post(f"{HERE}/create", name=place.name, source=place.fill(source), **told))
    assert "latest_versions" not in ask.read("registered-models/get", name=place.name)["registered_model"]


@pytest.mark.parametrize(
    ("source", "fields"),
    [
        ("models:/no such/1", {}),
        ("models:/{name}/1", {}),
        (f"models:/m-{NOBODY}", {"model_id": f"m-{NOBODY}"}),
        ("s3://b/p", {"model_id": f"m-{NOBODY}"}),
        ("s3://b/p", {"model_id": "m-zz"}),
    ],
)
def test_sources_that_are_not_there(ask: Asking, place: Place, source: str, fields: dict[str, str]) -> None:
    told = ask.post(f"{HERE}/create", name=place.name, source=place.fill(source), **fields)
    refused(told, 404, "RESOURCE_DOES_NOT_EXIST")


def test_a_copy_of_another_lineage_is_refused(ask: Asking, place: Place) -> None:
    create(ask, place, "s3://b/p")
    other = {"name": place.name, "source": place.fill("models:/{name}/1")}
    refused(ask.post(f"{HERE}/create", **other, run_id=place.run_id))
    refused(ask.post(f"{HERE}/create", **other, model_id=place.model_id))
    assert ask.ok(f"{HERE}/create", **other, run_id="", model_id="")["model_version"]["version"] == "2"


def test_where_an_experiment_is_kept_elsewhere(ask: Asking) -> None:
    name = f"elsewhere-{uuid.uuid4().hex}"
    ask.ok("registered-models/create", name=name)
    place = place_of(ask, name, artifact_location="/mnt/models")
    inside = f"/mnt/models/{place.run_id}/artifacts/model"
    for source in (inside, f"file://{inside}"):
        made = create(ask, place, source, run_id="{r}")
        assert (made["source"], location(ask, name, made["version"])) == (source, source)
    create(ask, place, "runs:/{r}/model", run_id="{r}")
    assert location(ask, name, "3") == f"runs:/{place.run_id}/model"
    create(ask, place, "models:/{m}", model_id="{m}")
    assert location(ask, name, "4") == f"/mnt/models/models/{place.model_id}/artifacts"
    for source, run_id in (
        (inside, ""),
        ("/mnt/models/other/artifacts/model", place.run_id),
        (place.of_run, place.run_id),
    ):
        refused(ask.post(f"{HERE}/create", name=name, source=source, run_id=run_id))


def test_numbers_are_not_given_twice(ask: Asking, place: Place) -> None:
    for number in ("1", "2"):
        assert create(ask, place, "s3://b/p")["version"] == number
    ask.ok("registered-models/alias", name=place.name, alias="champion", version="2")
    assert ask.json("DELETE", f"{HERE}/delete", {"name": place.name, "version": "2"}).json == {}
    again = ask.json("DELETE", f"{HERE}/delete", {"name": place.name, "version": "2"})
    refused(again, 404, "RESOURCE_DOES_NOT_EXIST")
    model = ask.read("registered-models/get", name=place.name)["registered_model"]
    assert ("aliases" in model, [each["version"] for each in model["latest_versions"]]) == (False, ["1"])
    assert create(ask, place, "s3://b/p")["version"] == "3"


def test_stages(ask: Asking, place: Place) -> None:
    for _ in range(3):
        create(ask, place, "s3://b/p")

    def move(version: str, stage: str, **fields: object) -> str:
        moved = ask.ok(f"{HERE}/transition-stage", name=place.name, version=version, stage=stage, **fields)
        return str(moved["model_version"]["current_stage"])

    def stages() -> list[str]:
        found = [ask.read(f"{HERE}/get", name=place.name, version=str(number)) for number in (1, 2, 3)]
        return [each["model_version"]["current_stage"] for each in found]

    assert (move("1", "staging"), move("2", "PRODUCTION"), move("2", "Production")) == ("Staging", *["Production"] * 2)
    assert move("3", "production", archive_existing_versions=True) == "Production"
    assert stages() == ["Staging", "Archived", "Production"]
    assert (move("3", "None"), stages()[2]) == ("None", "None")
    for stage, archive in (("Live", False), ("", False), ("Archived", True), ("none", True)):
        asked = {"name": place.name, "version": "1", "stage": stage, "archive_existing_versions": archive}
        refused(ask.post(f"{HERE}/transition-stage", **asked))


def test_a_description(ask: Asking, place: Place) -> None:
    create(ask, place, "s3://b/p")
    for description in ("new", ""):
        fields = {"name": place.name, "version": "1", "description": description}
        changed = ask.json("PATCH", f"{HERE}/update", fields).json["model_version"]
        assert changed["description"] == description


def test_tags(ask: Asking, place: Place) -> None:
    create(ask, place, "s3://b/p")
    of = {"name": place.name, "version": "1"}
    ask.ok(f"{HERE}/set-tag", **of, key="k", value="v" * 100_000)
    ask.ok(f"{HERE}/set-tag", **of, key="k", value="v")
    ask.ok(f"{HERE}/set-tag", **of, key="empty")
    for _ in range(2):
        assert ask.json("DELETE", f"{HERE}/delete-tag", {**of, "key": "empty"}).json == {}
    found = ask.read(f"{HERE}/get", **of)["model_version"]
    assert found["tags"] == [{"key": "k", "value": "v"}]
    for key in ("a!b", "a//b", "", "k" * 251):
        refused(ask.post(f"{HERE}/set-tag", **of, key=key, value="v"))
        refused(ask.post(f"{HERE}/create", name=place.name, source="s3://b/p", tags=[{"key": key, "value": "v"}]))


def test_searches(ask: Asking, place: Place) -> None:
    create(ask, place, "{runs}/model", run_id="{r}")
    create(ask, place, "models:/{m}", model_id="{m}", tags=[{"key": "a", "value": "b"}])
    create(ask, place, "models:/{name}/1")
    create(ask, place, "s3://b/p")
    ask.ok(f"{HERE}/set-tag", name=place.name, version="1", key="k", value="v")

    def found(text: str, **fields: object) -> list[str]:
        answer = ask.read(f"{HERE}/search", filter=f"name = '{place.name}'{place.fill(text)}", **fields)
        return [each["version"] for each in answer.get("model_versions", [])]

    assert found("") == ["1", "4", "3", "2"]  # the last that changed first
    assert found("", order_by="version_number ASC") == ["1", "2", "3", "4"]
    assert found("", order_by=["creation_timestamp DESC", "name"]) == ["4", "3", "2", "1"]
    assert found(" AND run_id = '{r}'") == ["1", "3", "2"]
    assert found(" AND run_id IN ('{r}', 'x') AND version_number > 1") == ["3", "2"]
    assert found(" AND run_id = 'no id'") == []
    assert found(" AND source_path = '{runs}/model'") == ["1"]
    assert found(" AND source_path LIKE 'models:/%'") == ["3", "2"]
    assert found(" AND source_path ILIKE 'S3:%'") == ["4"]
    assert found(" AND tags.a = 'b'") == ["2"]
    assert found(" AND version_number >= 2 AND version_number <= '3'") == ["3", "2"]
    first = ask.read(f"{HERE}/search", filter=f"name = '{place.name}'", max_results=3)
    assert found("", max_results=3, page_token=first["next_page_token"]) == ["2"]
    for bad in (
        {"filter": "bogus = 'x'"},
        {"filter": "version_number > 1.5"},
        {"filter": "name > 'x'", "max_results": 200_001},
        {"order_by": "bogus"},
        {"max_results": 0},
        {"max_results": -1},
    ):
        refused(ask.get(f"{HERE}/search", **bad))


def test_versions_of_other_doors(ask: Asking, server: ServerProcess, place: Place) -> None:
    with Client(server.grpc_address) as client:
        client.registry.create_version(place.name, source="s3://b/p", run_id=place.run_id)
        create(ask, place, "models:/{m}", model_id="{m}", run_link="http://x")
        theirs = client.registry.resolve(f"models:/{place.name}/2")
    ours = ask.read(f"{HERE}/get", name=place.name, version="1")["model_version"]
    assert (ours["source"], ours["run_id"], ours["run_link"]) == ("s3://b/p", place.run_id, "")
    assert (theirs.source, theirs.run_id, theirs.source_problem) == (f"models:/{place.model_id}", place.run_id, "")


def test_a_deleted_logged_model_is_told(ask: Asking, server: ServerProcess, place: Place) -> None:
    create(ask, place, "models:/{m}", model_id="{m}")
    for _ in range(2):
        assert ask.json("DELETE", f"logged-models/{place.model_id}", {}).status == 200
    with Client(server.grpc_address) as client:
        events = [each for each in client.registry.events(place.name) if each.kind == "source_deleted"]
        assert client.registry.resolve(f"models:/{place.name}/1").source_problem == "its logged model is deleted"
    assert [(each.key, each.before) for each in events] == [
        ("logged_model", {"logged_model_id": place.model_id, "run_id": place.run_id})
    ]
    told = ask.post(f"{HERE}/create", name=place.name, source=f"models:/{place.model_id}", model_id=place.model_id)
    refused(told, 404, "RESOURCE_DOES_NOT_EXIST")


def test_the_files_of_a_logged_model_are_brought_by_our_client(
    ask: Asking, server: ServerProcess, place: Place, tmp_path: Path
) -> None:
    at = f"{place.of_model.replace('mlflow-artifacts:', '/api/2.0/mlflow-artifacts/artifacts')}/MLmodel"
    assert ask.request("PUT", at, b"flavors: {}").status == 200
    create(ask, place, "models:/{m}", model_id="{m}")
    with Client(server.grpc_address) as client:
        found = client.registry.download(f"{place.name}/1", tmp_path / "model")
    assert (found / "MLmodel").read_bytes() == b"flavors: {}"
