"""The client's side of the model registry against a real server: models, versions, aliases, promotion, history."""

from __future__ import annotations

import inspect
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock import errors
from penstock.registry_client import AsyncRegistry, Registry
from servers import ServerProcess


@pytest.fixture
def registry(client: penstock.Client) -> Registry:
    return client.registry


@pytest.fixture
def name() -> str:
    """Of a model that no other test has."""
    return f"iris {uuid.uuid4().hex}"


@pytest.fixture
def run_id(client: penstock.Client) -> str:
    """A run with a model, and something to judge it by."""
    run = client.create_run(f"registry {uuid.uuid4().hex}")
    client.log_batch(run.id, {"acc": 0.9}, {"lr": 0.1}, step=1)
    client.upload_artifact(run.id, b"a model", "model/weights.bin")
    client.upload_artifact(run.id, b"settings", "model/settings.txt")
    return run.id


@pytest.fixture
def someone_else(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Ann, of whom the server knows by what her client says."""

    class Ann(penstock.Client):
        def _carry(self, flow: Any) -> Any:
            with monkeypatch.context() as environment:
                environment.setenv("PENSTOCK_USER", "Ann Žofie")
                return super()._carry(flow)

    with Ann(server.grpc_address) as client:
        yield client.registry


@pytest.mark.parametrize("size", [5, 3_000_000])
def test_files_of_a_version_are_replaced_by_force(
    client: penstock.Client, registry: Registry, name: str, run_id: str, tmp_path: Path, size: int
) -> None:
    registry.create_version(name, run_id, "model", create_model=True)
    (tmp_path / "weights.bin").write_bytes(b"x" * size)
    (tmp_path / "settings.txt").write_text("new settings")
    with pytest.raises(errors.FailedPrecondition, match="stands on"):
        client.upload_artifact(run_id, tmp_path / "weights.bin", "model/weights.bin")
    with pytest.raises(errors.TransferFailed, match="2 of 2 files failed"):
        client.upload_artifacts(run_id, tmp_path, "model")
    assert client.read_artifact(run_id, "model/weights.bin") == b"a model"
    client.upload_artifact(run_id, tmp_path / "weights.bin", "model/weights.bin", force=True)
    client.upload_artifacts(run_id, tmp_path, "model", force=True)
    assert client.stat_artifact(run_id, "model/weights.bin").size == size
    assert client.read_artifact(run_id, "model/settings.txt") == b"new settings"
    with pytest.raises(errors.FailedPrecondition, match="is a directory"):
        client.upload_artifact(run_id, b"x", "model", force=True)


def test_models(registry: Registry, name: str) -> None:
    made = registry.create_model(name, "flowers", {"team": "vision", "size": 3})
    assert registry.get_model(name) == made
    assert (made.description, made.tags, made.last_version) == ("flowers", {"team": "vision", "size": "3"}, 0)
    assert made.created_by
    with pytest.raises(errors.AlreadyExists):
        registry.create_model(name)
    assert registry.update_model(name, description="more flowers").description == "more flowers"
    registry.set_model_tags(name, {"team": "flora"})
    registry.delete_model_tags(name, "size")
    with pytest.raises(errors.NotFound):
        registry.delete_model_tags(name, ["size"])
    renamed = registry.rename_model(name, f"{name} renamed")
    assert (renamed.name, renamed.tags) == (f"{name} renamed", {"team": "flora"})
    with pytest.raises(errors.NotFound):
        registry.get_model(name)
    registry.delete_model(renamed.name)
    with pytest.raises(errors.NotFound):
        registry.delete_model(renamed.name)
    with pytest.raises(errors.InvalidArgument):
        registry.create_model("a/b")


def test_versions(registry: Registry, name: str, run_id: str) -> None:
    with pytest.raises(errors.NotFound):
        registry.create_version(name, run_id, "model")
    one = registry.create_version(name, run_id, "model", tags={"a": 1}, create_model=True)
    assert (one.version, one.run_id, one.path, one.status, one.stage) == (1, run_id, "model", "READY", "None")
    assert (one.source, one.uri, one.tags) == (f"runs:/{run_id}/model", f"models:/{name}/1", {"a": "1"})
    with pytest.raises(errors.NotFound):
        registry.create_version(name, run_id, "none")
    two = registry.create_version(name, source="s3://elsewhere/model", status="pending", request_id="once")
    assert registry.create_version(name, source="s3://elsewhere/model", request_id="once").version == two.version == 2
    assert two.status is penstock.ModelVersionStatus.PENDING
    ready = registry.update_version(name, 2, description="from elsewhere", status="ready")
    assert (ready.status, ready.description) == ("READY", "from elsewhere")
    failed = registry.create_version(name, source="s3://elsewhere/other", status="pending")
    failed = registry.update_version(name, failed.version, status="failed", status_message="no bytes")
    assert (failed.status, failed.status_message) == ("FAILED", "no bytes")
    registry.set_version_tags(name, 2, {"b": 2})
    registry.delete_version_tags(name, 1, "a")
    assert (registry.get_version(name, 1).tags, registry.get_version(name, 2).tags) == ({}, {"b": "2"})

    assert registry.set_stage(name, 1, "production").stage is penstock.ModelStage.PRODUCTION
    assert registry.set_stage(name, 2, "Production", archive_others=True).stage == "Production"
    assert registry.get_version(name, 1).stage == "Archived"
    assert [each.version for each in registry.latest_versions(name, "Production")] == [2]
    assert {each.stage.value: each.version for each in registry.latest_versions(name)} == {
        "None": 3,
        "Production": 2,
        "Archived": 1,
    }
    for ref, version in ((f"{name}/1", 1), (f"models:/{name}/Production", 2), (f"models:/{name}/latest", 3)):
        assert registry.resolve(ref).version == version
    found = registry.search_versions(f"name = '{name}'", "version DESC", limit=2)
    assert [each.version for each in found] == [3, 2]
    registry.delete_version(name, 3)
    with pytest.raises(errors.NotFound):
        registry.get_version(name, 3)
    assert [each.name for each in registry.search_models(f"name = '{name}'")] == [name]
    assert registry.create_version(name, run_id).version == 4
    with pytest.raises(ValueError, match="'shop' is not one of None, Staging, Production, Archived"):
        registry.set_stage(name, 1, "shop")


def test_searches_hide_their_pages(registry: Registry, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.calls.PAGE", 2)
    registry.create_model(name)
    for number in range(5):
        registry.create_version(name, source=f"s3://elsewhere/{number}")
        registry.create_model(f"{name} {number}")
    filter_ = f"name = '{name}'"
    assert [each.version for each in registry.search_versions(filter_, "version ASC")] == [1, 2, 3, 4, 5]
    assert len(registry.search_versions(filter_, limit=3)) == 3
    assert len(registry.search_models(f"name LIKE '{name}%'")) == 6
    assert len(registry.search_models(f"name LIKE '{name}%'", limit=5)) == 5
    assert len(registry.events(name)) == 6
    assert [each.kind for each in registry.events(name, oldest_first=True, limit=3)] == [
        "model_created",
        "version_created",
        "version_created",
    ]


def test_an_alias_is_moved_by_one_of_two(registry: Registry, someone_else: Registry, name: str) -> None:
    registry.create_model(name)
    for _ in range(3):
        registry.create_version(name, source="s3://elsewhere")
    assert registry.set_alias(name, "champion", 1, expected=0) == 0
    assert someone_else.set_alias(name, "champion", 2) == 1
    with pytest.raises(errors.AliasMoved, match="names version 2, not version 1") as moved:
        registry.set_alias(name, "champion", 3, expected=1)
    assert (moved.value.version, moved.value.moved_by) == (2, "Ann Žofie")
    assert moved.value.moved_ms > 1_700_000_000_000
    assert registry.set_alias(name, "champion", 3, expected=moved.value.version) == 2
    assert registry.resolve(f"models:/{name}@champion").aliases == ["champion"]
    assert registry.get_model(name).aliases == {"champion": 3}
    with pytest.raises(errors.AliasMoved):
        registry.delete_alias(name, "champion", expected=1)
    assert registry.delete_alias(name, "champion", expected=3) == 3
    with pytest.raises(errors.AliasMoved) as gone:
        registry.set_alias(name, "other", 3, expected=1)
    assert (gone.value.version, gone.value.moved_by, gone.value.moved_ms) == (0, "", 0)
    with pytest.raises(errors.NotFound):
        registry.resolve(f"models:/{name}@champion")
    told = [(each.kind, each.version, each.by) for each in registry.events(name, key="champion")]
    me = registry.get_model(name).created_by
    assert told == [
        ("alias_deleted", 3, me),
        ("alias_set", 3, me),
        ("alias_set", 2, "Ann Žofie"),
        ("alias_set", 1, me),
    ]


def test_promotion_by_gates(registry: Registry, name: str, run_id: str) -> None:
    registry.create_version(name, run_id, "model", create_model=True)
    gates = ["metrics.acc >= 0.8", "metrics.acc >= champion.metrics.acc"]
    dry = registry.promote(name, 1, alias="champion", gates=gates, dry_run=True)
    assert dry
    assert registry.get_model(name).aliases == {}
    done = registry.promote(name, 1, alias="champion", gates=gates, expected=0)
    assert (done.promoted, done.previous, done.version.aliases) == (True, 0, ["champion"])
    assert [(gate.gate, gate.passed, gate.stored) for gate in done.gates] == [(each, True, False) for each in gates]
    assert [(value.field, float(value.value or 0), value.version) for value in done.gates[0].values] == [
        ("metrics.acc", 0.9, 1)
    ]
    refused = registry.promote(name, 1, stage="Production", gates=["metrics.f1 > 0.5", "params.lr = '0.1'"])
    assert not refused
    assert [gate.passed for gate in refused.gates] == [False, True]
    assert "f1" in refused.gates[0].reason
    assert refused.gates[0].values[0].value is None
    assert refused.version.stage == "None"
    with pytest.raises(errors.InvalidFilter):
        registry.promote(name, 1, alias="champion", gates=["acc >>"])
    with pytest.raises(ValueError, match="alias= or stage="):
        registry.promote(name, 1)


def test_policies_and_approvals(registry: Registry, someone_else: Registry, name: str, run_id: str) -> None:
    registry.create_version(name, run_id, "model", create_model=True)
    registry.set_policy(name, stage="Production", gates="metrics.acc > 0.5", approvals=1)
    (policy,) = registry.get_model(name).policies
    assert policy == penstock.PromotionPolicy(None, penstock.ModelStage.PRODUCTION, ["metrics.acc > 0.5"], 1)
    with pytest.raises(errors.Guarded):
        registry.set_stage(name, 1, "Production")
    with pytest.raises(errors.FailedPrecondition):
        registry.promote(name, 1, stage="Production")
    asked = registry.request_promotion(name, 1, stage="Production", comment="it is good")
    assert (asked.state, asked.stage, asked.alias, asked.approvals_needed) == ("PENDING", "Production", None, 1)
    assert [gate.passed for gate in asked.results] == [True]
    assert registry.request_promotion(name, 1, stage="Production").id == asked.id
    assert [each.id for each in registry.promotions(name, "pending")] == [asked.id]
    with pytest.raises(errors.PermissionDenied):
        registry.approve(name, asked.id)
    done = someone_else.approve(name, asked.id, "so it is")
    assert (done.state, [(each.by, each.approved, each.comment) for each in done.verdicts]) == (
        penstock.PromotionState.PROMOTED,
        [("Ann Žofie", True, "so it is")],
    )
    assert done.settle_time_ms is not None
    assert registry.get_version(name, 1).stage == "Production"
    registry.create_version(name, run_id, "model")
    again = registry.request_promotion(name, 2, stage="Production")
    assert someone_else.reject(name, again.id).state == "REJECTED"
    assert [each.state for each in registry.promotions(name)] == ["REJECTED", "PROMOTED"]
    registry.delete_policy(name, stage="Production")
    assert registry.set_stage(name, 2, "Production").stage == "Production"


def test_what_a_version_stands_on_is_kept_unless_forced(
    client: penstock.Client, registry: Registry, name: str, run_id: str
) -> None:
    registry.create_version(name, run_id, "model", create_model=True)
    experiment = client.get_run(run_id).experiment_id
    # The experiment first: what a run's deletion was forced for is not asked for again.
    for delete in (
        lambda **force: client.delete_artifact(run_id, "model/weights.bin", **force),
        lambda **force: client.delete_experiment(experiment, **force),
        lambda **force: client.delete_run(run_id, **force),
    ):
        with pytest.raises(errors.FailedPrecondition, match=name):
            delete()
        delete(force=True)
        client.restore_experiment(experiment)
    assert {each.key for each in registry.events(name, kinds=["source_deleted"])} == {"artifact", "run", "experiment"}


def test_download(client: penstock.Client, registry: Registry, name: str, run_id: str, tmp_path: Path) -> None:
    registry.create_version(name, run_id, "model", create_model=True)
    registry.set_alias(name, "champion", 1)
    target = registry.download(f"models:/{name}@champion", tmp_path / "got")
    assert {each.name: each.read_bytes() for each in target.iterdir()} == {
        "weights.bin": b"a model",
        "settings.txt": b"settings",
    }
    registry.create_version(name, source="s3://elsewhere/model")
    with pytest.raises(errors.FailedPrecondition, match="is at s3://elsewhere/model"):
        registry.download(f"{name}/2")
    with pytest.raises(errors.NotFound):
        registry.download(f"{name}@nobody")


def test_a_watch_tells_what_happens_from_where_it_is_told(registry: Registry, name: str) -> None:
    watch = registry.watch(name)
    registry.create_model(name)
    registry.create_version(name, source="s3://elsewhere")
    registry.set_alias(name, "champion", 1)
    events = [next(watch) for _ in range(3)]
    watch.close()  # type: ignore[attr-defined]
    assert [each.kind for each in events] == ["model_created", "version_created", "alias_set"]
    assert (events[2].key, events[2].version, events[2].name) == ("champion", 1, name)
    assert events == registry.events(name, oldest_first=True)
    assert events[0].id < events[1].id < events[2].id
    later = registry.watch(name, kinds=["alias_set", "version_created"], after=events[0].id)
    assert [next(later), next(later)] == events[1:]
    assert next(registry.watch(keys="champion", after=events[0].id)) == events[2]
    with pytest.raises(ValueError, match="'alias' is no kind of event; there are model_created, "):
        registry.watch(name, kinds="alias")
    with pytest.raises(ValueError, match="is no kind"):
        registry.events(name, kinds=["alias"])


def test_waiting_for_an_alias(registry: Registry, name: str) -> None:
    registry.create_model(name)
    for _ in range(3):
        registry.create_version(name, source="s3://elsewhere")
    with pytest.raises(errors.TimedOut, match="champion still names no version"):
        registry.wait_for(name, alias="champion", timeout=0.2)
    registry.set_alias(name, "champion", 1)
    assert registry.wait_for(name, alias="champion", other_than=0, timeout=60).version == 1
    assert registry.wait_for(name, alias="champion", version=1, timeout=60).version == 1
    assert registry.wait_for(name, other_than=2, timeout=60).version == 3
    with pytest.raises(errors.TimedOut, match="champion still names version 1"):
        registry.wait_for(name, alias="champion", timeout=0.2)

    watch = registry.watch(name)
    found: list[penstock.ModelVersion] = []
    waiting = threading.Thread(
        target=lambda: found.append(registry.wait_for(name, alias="champion", version=3, timeout=60))
    )
    waiting.start()
    registry.set_alias(name, "champion", 2)
    registry.set_alias(name, "champion", 3)
    waiting.join(60)
    assert [each.version for each in found] == [3]
    assert [next(watch).version, next(watch).version] == [2, 3]
    staged = registry.set_stage(name, 2, "Staging")
    assert registry.wait_for(name, stage="staging", other_than=0, timeout=60) == staged
    with pytest.raises(errors.NotFound):
        registry.wait_for(f"no {name}", alias="champion", timeout=60)


async def test_the_asyncio_client_has_it_too(server: ServerProcess, name: str, run_id: str, tmp_path: Path) -> None:
    async with penstock.AsyncClient(server.grpc_address) as client:
        registry = client.registry
        made = await registry.create_version(name, run_id, "model", create_model=True)
        first = await registry.events(name, oldest_first=True, limit=1)
        assert await registry.promote(name, made.version, alias="champion", gates=["metrics.acc > 0.5"])
        kinds = []
        async for event in registry.watch(name, after=first[0].id):
            kinds.append(event.kind)
            if "promoted" in kinds and "alias_set" in kinds:
                break
        assert kinds[0] == "version_created"
        waited = await registry.wait_for(name, alias="champion", version=1, timeout=60)
        assert waited == await registry.resolve(f"models:/{name}@champion")
        with pytest.raises(errors.TimedOut):
            await registry.wait_for(name, alias="champion", timeout=0.2)
        target = await registry.download(f"{name}/1", tmp_path / "got")
        assert (target / "weights.bin").read_bytes() == b"a model"
        with pytest.raises(errors.AliasMoved):
            await registry.set_alias(name, "champion", 1, expected=7)


def test_both_clients_have_the_same_registry() -> None:
    blocking, coroutine = ({each for each in dir(cls) if not each.startswith("_")} for cls in (Registry, AsyncRegistry))
    assert blocking == coroutine
    for each in blocking:
        assert getattr(Registry, each).__doc__, f"{each} is not described"
        one, other = (inspect.signature(getattr(cls, each)) for cls in (Registry, AsyncRegistry))
        assert list(one.parameters) == list(other.parameters)


def test_help_shows_what_callers_give() -> None:
    promote = penstock.Client("127.0.0.1:9").registry.promote
    assert next(iter(inspect.signature(promote).parameters)) == "name"
    assert str(inspect.signature(promote)).endswith("-> 'PromotionResult'")


def test_what_is_no_version_is_named(client: penstock.Client) -> None:
    registry: Any = client.registry
    for call in (
        lambda: registry.set_alias("iris", "x", "1"),
        lambda: registry.get_version("iris", "1"),
        lambda: registry.promote("iris", "1", alias="x"),
    ):
        with pytest.raises(TypeError, match="version is to be a whole number, such as 3, and is '1'"):
            call()
    with pytest.raises(TypeError, match="ref is to be text, such as 'models:/iris/3', and is 5"):
        registry.resolve(5)
