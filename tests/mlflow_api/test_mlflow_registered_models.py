"""Registered models over MLflow's REST API: their tags, their aliases, the newest versions that they lead to."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from asking import Asking, Told

from penstock import Client
from servers import ServerProcess

HERE = "registered-models"


@pytest.fixture
def name(ask: Asking) -> str:
    """A model without versions."""
    name = f"model-{uuid.uuid4().hex}"
    ask.ok(f"{HERE}/create", name=name)
    return name


def get(ask: Asking, name: str) -> Any:
    return ask.read(f"{HERE}/get", name=name)["registered_model"]


def version(ask: Asking, name: str, **fields: Any) -> str:
    made = ask.ok("model-versions/create", **{"name": name, "source": "s3://bucket/model", **fields})
    return str(made["model_version"]["version"])


def refused(told: Told, status: int, code: str) -> str:
    assert (told.status, told.code) == (status, code), told.body
    return str(told.json["message"])


def test_made_and_found(ask: Asking) -> None:
    tags = [{"key": "team", "value": "vision"}, {"key": "team", "value": "sound"}, {"key": "empty"}]
    made = ask.ok(f"{HERE}/create", name="made", description="of iris", tags=tags)["registered_model"]
    assert made == get(ask, "made")
    assert 0 < made.pop("creation_timestamp") <= made.pop("last_updated_timestamp")
    assert made == {
        "name": "made",
        "description": "of iris",
        "tags": [{"key": "empty", "value": ""}, {"key": "team", "value": "sound"}],
    }


def test_a_name_that_is_taken(ask: Asking, name: str) -> None:
    told = refused(ask.post(f"{HERE}/create", name=name), 400, "RESOURCE_ALREADY_EXISTS")
    assert told == f"Registered Model (name={name}) already exists."
    ask.ok(f"{HERE}/create", name=f"{name}-2")
    refused(ask.post(f"{HERE}/rename", name=name, new_name=f"{name}-2"), 400, "RESOURCE_ALREADY_EXISTS")


@pytest.mark.parametrize("bad", ["", " ", "a/b", "a:b", ".", "..", None, 5])
def test_names_that_none_can_have(ask: Asking, name: str, bad: object) -> None:
    refused(ask.post(f"{HERE}/create", name=bad), 400, "INVALID_PARAMETER_VALUE")
    refused(ask.post(f"{HERE}/rename", name=name, new_name=bad), 400, "INVALID_PARAMETER_VALUE")


def test_what_is_not_there(ask: Asking) -> None:
    asked = {"name": "no such", "new_name": "b", "alias": "a", "version": "1", "key": "k"}
    for method, path in (
        ("POST", "rename"),
        ("PATCH", "update"),
        ("DELETE", "delete"),
        ("POST", "get-latest-versions"),
        ("POST", "set-tag"),
        ("DELETE", "delete-tag"),
        ("POST", "alias"),
        ("DELETE", "alias"),
    ):
        refused(ask.json(method, f"{HERE}/{path}", asked), 404, "RESOURCE_DOES_NOT_EXIST")
    told = refused(ask.get(f"{HERE}/get", name="no such"), 404, "RESOURCE_DOES_NOT_EXIST")
    assert told == "Registered Model with name=no such not found"
    refused(ask.get(f"{HERE}/alias", name="no such", alias="a"), 404, "RESOURCE_DOES_NOT_EXIST")


def test_a_renamed_model_has_all_it_had(ask: Asking, name: str) -> None:
    version(ask, name)
    ask.ok(f"{HERE}/alias", name=name, alias="champion", version="1")
    ask.ok(f"{HERE}/set-tag", name=name, key="k", value="v")
    renamed = ask.ok(f"{HERE}/rename", name=name, new_name=f"{name}-new")["registered_model"]
    assert renamed["name"] == renamed["latest_versions"][0]["name"] == f"{name}-new"
    assert (renamed["aliases"], renamed["tags"]) == (
        [{"alias": "champion", "version": "1"}],
        [{"key": "k", "value": "v"}],
    )
    refused(ask.get(f"{HERE}/get", name=name), 404, "RESOURCE_DOES_NOT_EXIST")


def test_a_description(ask: Asking, name: str) -> None:
    changed = ask.json("PATCH", f"{HERE}/update", {"name": name, "description": "of iris"}).json["registered_model"]
    assert changed["description"] == get(ask, name)["description"] == "of iris"
    assert "description" not in ask.json("PATCH", f"{HERE}/update", {"name": name}).json["registered_model"]


def test_deleted_with_all_it_has(ask: Asking, name: str) -> None:
    version(ask, name)
    assert ask.json("DELETE", f"{HERE}/delete", {"name": name}).json == {}
    refused(ask.json("DELETE", f"{HERE}/delete", {"name": name}), 404, "RESOURCE_DOES_NOT_EXIST")
    refused(ask.get("model-versions/get", name=name, version="1"), 404, "RESOURCE_DOES_NOT_EXIST")


def test_tags(ask: Asking, name: str) -> None:
    ask.ok(f"{HERE}/set-tag", name=name, key="a b/c.d:e", value="1")
    ask.ok(f"{HERE}/set-tag", name=name, key="empty")
    for _ in range(2):  # what is not there is deleted
        assert ask.json("DELETE", f"{HERE}/delete-tag", {"name": name, "key": "empty"}).json == {}
    assert get(ask, name)["tags"] == [{"key": "a b/c.d:e", "value": "1"}]
    for key in ("a!b", "a//b", "../a", "", "k" * 251):
        refused(ask.post(f"{HERE}/set-tag", name=name, key=key, value="v"), 400, "INVALID_PARAMETER_VALUE")
        refused(ask.json("DELETE", f"{HERE}/delete-tag", {"name": name, "key": key}), 400, "INVALID_PARAMETER_VALUE")
    refused(ask.post(f"{HERE}/set-tag", name=name, key="k", value="v" * 100_001), 400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize("alias", ["champion", "production", "Staging", "None", "é", "a-b_1"])
def test_an_alias(ask: Asking, name: str, alias: str) -> None:
    version(ask, name)
    version(ask, name)
    for number in ("1", "2"):
        assert ask.ok(f"{HERE}/alias", name=name, alias=alias, version=number) == {}
        found = ask.read(f"{HERE}/alias", name=name, alias=alias)["model_version"]
        assert (found["version"], found["aliases"]) == (number, [alias])
    assert get(ask, name)["aliases"] == [{"alias": alias, "version": "2"}]
    for _ in range(2):
        assert ask.json("DELETE", f"{HERE}/alias", {"name": name, "alias": alias}).json == {}
    told = refused(ask.get(f"{HERE}/alias", name=name, alias=alias), 400, "INVALID_PARAMETER_VALUE")
    assert told == f"Registered model alias {alias} not found."


@pytest.mark.parametrize("alias", ["latest", "Latest", "v1", "V12", "12", "a b", "x.y", "a" * 256, ""])
def test_aliases_that_none_can_have(ask: Asking, name: str, alias: str) -> None:
    version(ask, name)
    refused(ask.post(f"{HERE}/alias", name=name, alias=alias, version="1"), 400, "INVALID_PARAMETER_VALUE")


def test_the_latest_is_found_as_an_alias_is(ask: Asking, name: str) -> None:
    refused(ask.get(f"{HERE}/alias", name=name, alias="latest"), 404, "RESOURCE_DOES_NOT_EXIST")
    for _ in range(2):
        version(ask, name)
    assert ask.read(f"{HERE}/alias", name=name, alias="LATEST")["model_version"]["version"] == "2"
    assert ask.json("DELETE", f"{HERE}/alias", {"name": name, "alias": "latest"}).json == {}


def test_an_alias_of_a_version_that_is_not_there(ask: Asking, name: str) -> None:
    refused(ask.post(f"{HERE}/alias", name=name, alias="a", version="1"), 404, "RESOURCE_DOES_NOT_EXIST")
    for bad in ("x", 1, None, "1.0"):
        refused(ask.post(f"{HERE}/alias", name=name, alias="a", version=bad), 400, "INVALID_PARAMETER_VALUE")


def test_the_latest_of_each_stage(ask: Asking, name: str) -> None:
    assert ask.ok(f"{HERE}/get-latest-versions", name=name) == {}
    for _ in range(4):
        version(ask, name)
    for number, stage in (("1", "staging"), ("2", "STAGING"), ("3", "Production")):
        ask.ok("model-versions/transition-stage", name=name, version=number, stage=stage)
    ask.ok(f"{HERE}/alias", name=name, alias="champion", version="3")

    def latest(**fields: object) -> list[tuple[str, str]]:
        found = ask.ok(f"{HERE}/get-latest-versions", name=name, **fields)["model_versions"]
        return [(each["version"], each["current_stage"]) for each in found]

    everywhere = [("4", "None"), ("2", "Staging"), ("3", "Production")]
    assert latest() == latest(stages=[]) == everywhere
    assert latest(stages=["production", "Staging"]) == everywhere[1:]
    assert [(each["version"], each["current_stage"]) for each in get(ask, name)["latest_versions"]] == everywhere
    of_old_clients = ask.read(f"{HERE}/get-latest-versions", name=name, stages=["Staging", "Archived"])
    assert [each["version"] for each in of_old_clients["model_versions"]] == ["2"]
    told = ask.post(f"{HERE}/get-latest-versions", name=name, stages=["Live"])
    assert "None, Staging, Production, Archived" in refused(told, 400, "INVALID_PARAMETER_VALUE")


def test_searches(ask: Asking) -> None:
    for number in range(3):
        ask.ok(f"{HERE}/create", name=f"search-{number}", tags=[{"key": "of", "value": f"search {number % 2}"}])
    version(ask, "search-1")

    def found(text: str = "", **fields: object) -> list[str]:
        answer = ask.read(f"{HERE}/search", filter=text or "name LIKE 'search-%'", **fields)
        return [each["name"] for each in answer.get("registered_models", [])]

    names = [f"search-{number}" for number in range(3)]
    assert found() == found("name ILIKE 'SEARCH-%'") == names
    assert found("tags.of = 'search 0'") == found("tag.of LIKE '%0' AND name != 'x'") == [names[0], names[2]]
    assert found("name IN ('search-0', 'search-2') ", order_by="name DESC") == [names[2], names[0]]
    assert found(order_by="last_updated_timestamp DESC")[0] == found(order_by="timestamp DESC")[0] == names[1]
    assert found("name = 'nope'") == []
    assert ask.read(f"{HERE}/search", filter="name = 'nope'") == {}
    first = ask.read(f"{HERE}/search", filter="name LIKE 'search-%'", max_results=2)
    assert [each["name"] for each in first["registered_models"]] == names[:2]
    assert found(max_results=2, page_token=first["next_page_token"]) == names[2:]
    for bad in (
        {"filter": "bogus = 'x'"},
        {"filter": "name = 5"},
        {"filter": "name > 'x' AND"},
        {"order_by": "bogus"},
        {"order_by": ["name", "name DESC"]},
        {"max_results": 1_001},
        {"max_results": 0},
        {"max_results": "x"},
        {"page_token": "zz"},
    ):
        refused(ask.get(f"{HERE}/search", **bad), 400, "INVALID_PARAMETER_VALUE")


def test_what_a_policy_guards_is_refused(ask: Asking, server: ServerProcess, name: str) -> None:
    version(ask, name)
    with Client(server.grpc_address) as client:
        client.registry.set_policy(name, alias="champion", gates=["metrics.f1 > 0.9"])
        client.registry.set_policy(name, stage="Production", gates=["metrics.f1 > 0.9"])
    refused(ask.post(f"{HERE}/alias", name=name, alias="champion", version="1"), 403, "PERMISSION_DENIED")
    told = ask.post("model-versions/transition-stage", name=name, version="1", stage="production")
    refused(told, 403, "PERMISSION_DENIED")
    refused(ask.post(f"{HERE}/rename", name=name, new_name=f"{name}-2"), 400, "INVALID_PARAMETER_VALUE")
    ask.ok(f"{HERE}/alias", name=name, alias="production", version="1")  # the stage is guarded, not the alias


def test_the_history_tells_who_did_it(ask: Asking, server: ServerProcess, name: str) -> None:
    headers = {"content-type": "application/json", "authorization": "Basic YW5uOng="}  # ann
    body = f'{{"name": "{name}", "source": "s3://b/p"}}'.encode()
    assert ask.request("POST", "/api/2.0/mlflow/model-versions/create", body, headers).status == 200
    with Client(server.grpc_address) as client:
        events = client.registry.events(name)
    assert ("version_created", "ann") in {(event.kind, event.by) for event in events}
