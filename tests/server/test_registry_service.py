"""The registry over the wire: what errors tell programs, who is behind a change, and watches over two replicas."""

from __future__ import annotations

import queue
import signal
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from penstock.v1 import artifacts_pb2 as ar
from penstock.v1 import experiments_pb2 as ex
from penstock.v1 import registry_pb2 as pb
from penstock.v1 import runs_pb2 as ru
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from penstock.v1.registry_pb2_grpc import RegistryServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

ELSEWHERE = "s3://bucket/model"
PRODUCTION = pb.MODEL_STAGE_PRODUCTION


@pytest.fixture(scope="module")
def registry(channel: grpc.Channel) -> RegistryServiceStub:
    return RegistryServiceStub(channel)


@pytest.fixture
def name() -> str:
    """A model's name that no other test has: they share the server."""
    return f"iris {uuid.uuid4().hex[:8]}"


def make(registry: RegistryServiceStub, name: str, versions: int = 1, **fields: object) -> list[pb.ModelVersion]:
    request = pb.CreateModelVersionRequest(name=name, create_model=True, **({"source": ELSEWHERE} | fields))  # type: ignore[arg-type]
    return [registry.CreateModelVersion(request).version for _ in range(versions)]


def facts(error: grpc.RpcError) -> dict[str, str]:
    return dict(error.trailing_metadata())


class Watch:
    """What a watch tells, as it comes, then the error that it ends with."""

    def __init__(self, channel: grpc.Channel, **fields: object) -> None:
        self.call = RegistryServiceStub(channel).WatchRegistry(pb.WatchRegistryRequest(**fields))  # type: ignore[arg-type]
        self._told: queue.Queue[pb.WatchRegistryResponse | grpc.RpcError] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            for message in self.call:
                self._told.put(message)
        except grpc.RpcError as error:
            self._told.put(error)

    def next(self) -> pb.WatchRegistryResponse | grpc.RpcError:
        return self._told.get(timeout=60)

    def synced(self) -> int:
        told = self.next()
        assert isinstance(told, pb.WatchRegistryResponse)
        assert told.WhichOneof("told") == "synced_event_id"
        return told.synced_event_id

    def events(self, count: int) -> list[pb.RegistryEvent]:
        found: list[pb.RegistryEvent] = []
        while len(found) < count:
            told = self.next()
            assert isinstance(told, pb.WatchRegistryResponse), told
            if told.WhichOneof("told") == "event":
                found.append(told.event)
        return found


def test_a_version_from_its_making_to_its_end(registry: RegistryServiceStub, channel: grpc.Channel, name: str) -> None:
    """Every method that is about models, versions, stages and aliases."""
    run_id = RunServiceStub(channel).CreateRun(ru.CreateRunRequest()).run.run_id
    upload = ar.UploadArtifactRequest(header=ar.UploadHeader(run_id=run_id, path="model/weights", size=1, data=b"w"))
    ArtifactServiceStub(channel).UploadArtifact(iter([upload]))
    tags = {"team": "red"}
    create = pb.CreateRegisteredModelRequest(name=name, description="d", tags=tags)
    model = registry.CreateRegisteredModel(create).model
    assert (model.name, model.description, dict(model.tags), model.last_version) == (name, "d", tags, 0)
    of_run = pb.CreateModelVersionRequest(name=name, run_id=run_id, path="model", tags={"a": "b"})
    first = registry.CreateModelVersion(of_run).version
    assert (first.version, first.run_id, first.path, first.source) == (1, run_id, "model", f"runs:/{run_id}/model")
    assert (first.status, first.stage) == (pb.MODEL_VERSION_STATUS_READY, pb.MODEL_STAGE_NONE)
    make(registry, name)
    changed = registry.UpdateModelVersion(
        pb.UpdateModelVersionRequest(
            name=name, version=2, description="", status=pb.MODEL_VERSION_STATUS_FAILED, status_message="m"
        )
    ).version
    assert (changed.status, changed.status_message) == (pb.MODEL_VERSION_STATUS_FAILED, "m")
    registry.SetModelVersionTags(pb.SetModelVersionTagsRequest(name=name, version=1, tags={"c": "d"}))
    registry.DeleteModelVersionTags(pb.DeleteModelVersionTagsRequest(name=name, version=1, keys=["a"]))
    for version in (1, 2):
        moved = registry.TransitionStage(
            pb.TransitionStageRequest(name=name, version=version, stage=PRODUCTION, archive_others=True)
        ).version
        assert moved.stage == PRODUCTION
    assert registry.SetAlias(pb.SetAliasRequest(name=name, alias="champion", version=1, expected=0)).previous == 0
    for ref, number in ((f"models:/{name}@champion", 1), (f"{name}/Production", 2), (f"models:/{name}/1", 1)):
        resolved = registry.ResolveModelVersion(pb.ResolveModelVersionRequest(ref=ref))
        assert resolved.version.version == number
        assert resolved.download_uri == (f"runs:/{run_id}/model" if number == 1 else ELSEWHERE)
    got = registry.GetModelVersion(pb.GetModelVersionRequest(name=name, version=1)).version
    assert (dict(got.tags), list(got.aliases), got.stage) == ({"c": "d"}, ["champion"], pb.MODEL_STAGE_ARCHIVED)
    latest = registry.GetLatestVersions(pb.GetLatestVersionsRequest(name=name, stages=[PRODUCTION])).versions
    assert [version.version for version in latest] == [2]
    found = registry.SearchModelVersions(
        pb.SearchModelVersionsRequest(filter=f"name = '{name}' AND alias = 'champion'")
    )
    assert list(found.versions) == [got]
    registry.SetRegisteredModelTags(pb.SetRegisteredModelTagsRequest(name=name, tags={"x": "y"}))
    registry.DeleteRegisteredModelTags(pb.DeleteRegisteredModelTagsRequest(name=name, keys=["team"]))
    renamed = registry.UpdateRegisteredModel(
        pb.UpdateRegisteredModelRequest(name=name, new_name=f"{name} 2", description="")
    ).model
    assert (renamed.name, renamed.description, dict(renamed.tags)) == (f"{name} 2", "", {"x": "y"})
    assert [(alias.alias, alias.version) for alias in renamed.aliases] == [("champion", 1)]
    name = renamed.name
    assert registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=name)).model == renamed
    searched = registry.SearchRegisteredModels(pb.SearchRegisteredModelsRequest(filter=f"name = '{name}'")).models
    assert list(searched) == [renamed]
    assert registry.DeleteAlias(pb.DeleteAliasRequest(name=name, alias="champion", expected=1)).previous == 1
    registry.DeleteModelVersion(pb.DeleteModelVersionRequest(name=name, version=1))
    registry.DeleteRegisteredModel(pb.DeleteRegisteredModelRequest(name=name))
    with pytest.raises(grpc.RpcError) as caught:
        registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=name))
    assert (caught.value.code(), facts(caught.value)["penstock-kind"]) == (
        grpc.StatusCode.NOT_FOUND,
        "registered model",
    )


def test_events_have_who_and_the_request_that_the_answer_names(registry: RegistryServiceStub, name: str) -> None:
    request = pb.CreateRegisteredModelRequest(name=name)
    _, call = registry.CreateRegisteredModel.with_call(request, metadata=(("penstock-user", "J%C3%BCrgen%20M."),))
    update = pb.UpdateRegisteredModelRequest(name=name, description="d")
    registry.UpdateRegisteredModel(update, metadata=(("x-request-id", "mine"),))
    first, second = registry.ListEvents(pb.ListEventsRequest(name=name, oldest_first=True)).events
    assert (first.by, first.request_id) == ("Jürgen M.", dict(call.trailing_metadata())["x-request-id"])
    assert (second.by, second.request_id) == ("anonymous", "mine")
    assert (second.kind, second.name) == (pb.REGISTRY_EVENT_KIND_MODEL_UPDATED, name)
    assert (dict(second.before), dict(second.after)) == ({"description": ""}, {"description": "d"})
    assert registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=name)).model.created_by == "Jürgen M."


@pytest.mark.parametrize("user", ["", "%20%20", "%E2%80%83"])
def test_who_has_no_name_is_anonymous(registry: RegistryServiceStub, name: str, user: str) -> None:
    request = pb.CreateRegisteredModelRequest(name=name)
    assert registry.CreateRegisteredModel(request, metadata=(("penstock-user", user),)).model.created_by == "anonymous"


def test_any_kind_of_event_may_be_asked_for(registry: RegistryServiceStub, name: str) -> None:
    make(registry, name, 1)
    events = registry.ListEvents(pb.ListEventsRequest(name=name)).events
    created = pb.REGISTRY_EVENT_KIND_MODEL_CREATED
    for kinds in ([pb.REGISTRY_EVENT_KIND_UNSPECIFIED], [created, pb.REGISTRY_EVENT_KIND_UNSPECIFIED]):
        assert registry.ListEvents(pb.ListEventsRequest(name=name, kinds=kinds)).events == events
    with pytest.raises(grpc.RpcError, match="99 is not a valid EventKind; this server has 1 to "):
        registry.ListEvents(pb.ListEventsRequest(name=name, kinds=[created, 99]))  # type: ignore[list-item]


@pytest.mark.parametrize("user", ["a%0Ab", "x" * 251, "%00"])
def test_nobody_is_called_so(registry: RegistryServiceStub, name: str, user: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=name), metadata=(("penstock-user", user),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert facts(caught.value)["penstock-field"] == "penstock-user"


def test_a_loser_learns_who_moved_the_alias(registry: RegistryServiceStub, name: str) -> None:
    make(registry, name, 2)
    first = pb.SetAliasRequest(name=name, alias="champion", version=2, expected=0)
    registry.SetAlias(first, metadata=(("penstock-user", "J%C3%BCrgen"),))
    with pytest.raises(grpc.RpcError) as caught:
        registry.SetAlias(pb.SetAliasRequest(name=name, alias="champion", version=1, expected=0))
    told = facts(caught.value)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "names version 2, not no version: Jürgen moved it at 20" in (caught.value.details() or "")
    assert (told["penstock-error"], told["penstock-model"], told["penstock-alias"]) == ("AliasMoved", name, "champion")
    assert (told["penstock-version"], told["penstock-moved-by"]) == ("2", "J%C3%BCrgen")
    (event,) = registry.ListEvents(pb.ListEventsRequest(name=name, key="champion")).events
    assert abs(int(told["penstock-moved-ms"]) - event.time_ms) < 10_000


def test_what_is_guarded_says_so(registry: RegistryServiceStub, name: str) -> None:
    make(registry, name)
    target = pb.PromotionTarget(alias="champion")
    policy = pb.PromotionPolicy(target=target, gates=["tags.ok = 'yes'"])
    registry.SetPromotionPolicy(pb.SetPromotionPolicyRequest(name=name, policy=policy))
    with pytest.raises(grpc.RpcError) as caught:
        registry.SetAlias(pb.SetAliasRequest(name=name, alias="champion", version=1))
    told = facts(caught.value)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (told["penstock-error"], told["penstock-model"], told["penstock-target"]) == ("Guarded", name, "@champion")
    (shown,) = registry.GetRegisteredModel(pb.GetRegisteredModelRequest(name=name)).model.policies
    assert shown == policy


def test_bad_requests_name_their_field(registry: RegistryServiceStub, name: str) -> None:
    make(registry, name)
    for method, request, field in (
        (registry.CreateRegisteredModel, pb.CreateRegisteredModelRequest(name="a/b"), "name"),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(name=name), "source"),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(name=name, run_id="nope"), "run_id"),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(name=name, source="s", status=9), "status"),  # type: ignore[arg-type]
        (registry.GetModelVersion, pb.GetModelVersionRequest(name=name), "version"),
        (registry.ResolveModelVersion, pb.ResolveModelVersionRequest(ref=name), "ref"),
        (registry.GetLatestVersions, pb.GetLatestVersionsRequest(name=name, stages=[7]), "stages"),  # type: ignore[list-item]
        (registry.TransitionStage, pb.TransitionStageRequest(name=name, version=1), "stage"),
        (registry.TransitionStage, pb.TransitionStageRequest(name=name, version=1, stage=7), "stage"),  # type: ignore[arg-type]
        (registry.SetAlias, pb.SetAliasRequest(name=name, alias="v1", version=1), "alias"),
        (registry.SetAlias, pb.SetAliasRequest(name=name, alias="a", version=1, expected=-1), "expected"),
        (registry.ListEvents, pb.ListEventsRequest(name=name, kinds=[99]), "kinds"),  # type: ignore[list-item]
        (registry.SearchModelVersions, pb.SearchModelVersionsRequest(filter="nope = 1"), "filter"),
        (registry.SearchRegisteredModels, pb.SearchRegisteredModelsRequest(page_size=-1), "page_size"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(request)  # type: ignore[operator]
        assert (caught.value.code(), facts(caught.value)["penstock-field"]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            field,
        )


def test_what_a_version_stands_on_is_deleted_by_force(
    registry: RegistryServiceStub, channel: grpc.Channel, experiments, name: str
) -> None:
    runs, artifacts = RunServiceStub(channel), ArtifactServiceStub(channel)
    experiment_id = experiments.CreateExperiment(ex.CreateExperimentRequest(name=name)).experiment.experiment_id
    run_id = runs.CreateRun(ru.CreateRunRequest(experiment_id=experiment_id)).run.run_id
    header = ar.UploadHeader(run_id=run_id, path="model", size=1, data=b"w")
    artifacts.UploadArtifact(iter([ar.UploadArtifactRequest(header=header)]))
    make(registry, name, source=f"runs:/{run_id}/model")
    delete_artifact = ar.DeleteArtifactRequest(run_id=run_id, path="model")
    delete_run = ru.DeleteRunRequest(run_id=run_id)
    delete_experiment = ex.DeleteExperimentRequest(experiment_id=experiment_id)
    # The experiment before the run: what the run's deletion was forced for would not be asked for again.
    for method, request in (
        (artifacts.DeleteArtifact, delete_artifact),
        (experiments.DeleteExperiment, delete_experiment),
        (runs.DeleteRun, delete_run),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            method(request)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert f"{name} version 1 stands on" in (caught.value.details() or "")
        request.force = True
        method(request)
        experiments.RestoreExperiment(ex.RestoreExperimentRequest(experiment_id=experiment_id))
    gone = registry.ListEvents(
        pb.ListEventsRequest(name=name, kinds=[pb.REGISTRY_EVENT_KIND_SOURCE_DELETED], oldest_first=True)
    ).events
    assert [event.key for event in gone] == ["artifact", "experiment", "run"]


def test_what_a_version_stands_on_is_replaced_by_force(
    registry: RegistryServiceStub, channel: grpc.Channel, name: str
) -> None:
    """Nothing is deleted before: a file that cannot be stored leaves what was there."""
    runs, artifacts = RunServiceStub(channel), ArtifactServiceStub(channel)
    run_id = runs.CreateRun(ru.CreateRunRequest(experiment_name=name)).run.run_id

    def bring(path: str, data: bytes, **others: Any) -> None:
        header = ar.UploadHeader(run_id=run_id, path=path, size=len(data), data=data, **others)
        artifacts.UploadArtifact(iter([ar.UploadArtifactRequest(header=header)]))

    def refused(path: str, **others: Any) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            bring(path, b"new", **others)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        return caught.value.details() or ""

    bring("model/weights", b"w")
    make(registry, name, source=f"runs:/{run_id}/model")
    assert "stands on" in refused("model/weights")
    assert "is a directory" in refused("model", force=True)
    assert "is a file" in refused("model/weights/below", force=True)
    begin = ar.BeginUploadRequest(run_id=run_id, path="model/weights", size=3)
    with pytest.raises(grpc.RpcError, match="stands on"):
        artifacts.BeginUpload(begin)
    begin.force = True
    upload_id = artifacts.BeginUpload(begin).upload_id
    bring("model/weights", b"new", force=True, upload_id=upload_id)
    many = ar.UploadArtifactsRequest(run_id=run_id, files=[{"path": "model/weights", "data": b"newer"}])
    (outcome,) = artifacts.UploadArtifacts(many).outcomes
    assert outcome.failure.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    many.force = True
    (outcome,) = artifacts.UploadArtifacts(many).outcomes
    assert outcome.artifact.size == 5
    told = registry.ListEvents(pb.ListEventsRequest(name=name, kinds=[pb.REGISTRY_EVENT_KIND_SOURCE_DELETED])).events
    assert [event.key for event in told] == ["artifact", "artifact"]


def test_events_come_in_pages_that_fit(registry: RegistryServiceStub, name: str) -> None:
    registry.CreateRegisteredModel(pb.CreateRegisteredModelRequest(name=name))
    for number in range(80):  # each event has the text before and after it
        tags = {"notes": "äöü"[number % 3] * 60_000}
        registry.SetRegisteredModelTags(pb.SetRegisteredModelTagsRequest(name=name, tags=tags))
    keys: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = registry.ListEvents(pb.ListEventsRequest(name=name, oldest_first=True, page_token=token))
        keys += [event.key for event in page.events]
        token, pages = page.next_page_token, pages + 1
    assert keys == ["", *["notes"] * 80]
    assert pages > 1


@pytest.fixture(scope="module")
def replicas(postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers on one database. The last test stops the first of them."""
    directory = tmp_path_factory.mktemp("replicas")
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(directory / "one", dsn=dsn) as one, ServerProcess(directory / "two", dsn=dsn) as two:
        one.start()
        two.start()
        yield one.wait_ready(), two.wait_ready()
    postgres.drop(dsn)


def test_racing_teams_at_two_replicas(replicas: tuple[ServerProcess, ServerProcess]) -> None:
    """Numbers without a gap; each move of the alias from where the one before had it; one winner of each."""
    with replicas[0].channel() as first, replicas[1].channel() as second, ThreadPoolExecutor(20) as pool:
        stubs = [RegistryServiceStub(channel) for channel in (first, second)]
        made = list(pool.map(lambda number: make(stubs[number % 2], "raced")[0].version, range(50)))
        assert sorted(made) == list(range(1, 51))

        def move(version: int) -> str:
            request = pb.SetAliasRequest(name="raced", alias="champion", version=version, expected=0)
            try:
                return str(stubs[version % 2].SetAlias(request).previous)
            except grpc.RpcError as error:
                return facts(error)["penstock-error"]

        results = list(pool.map(move, range(1, 51)))
        assert sorted(results) == ["0", *["AliasMoved"] * 49]
        resolved = stubs[0].ResolveModelVersion(pb.ResolveModelVersionRequest(ref="raced@champion")).version
        assert resolved.version == results.index("0") + 1


def test_a_watch_at_one_replica_hears_the_other_and_goes_on_there(
    replicas: tuple[ServerProcess, ServerProcess],
) -> None:
    one, two = replicas
    with one.channel() as first, two.channel() as second:
        watch = Watch(first, names=["iris"], kinds=[pb.REGISTRY_EVENT_KIND_ALIAS_SET], keys=["champion"])
        began = watch.synced()
        registry = RegistryServiceStub(second)
        make(registry, "iris", 3)
        registry.SetAlias(pb.SetAliasRequest(name="iris", alias="champion", version=1))
        (event,) = watch.events(1)
        assert event.event_id > began
        assert (event.version, event.key, dict(event.after)) == (1, "champion", {"version": "1", "run_id": ""})
        one.signal(signal.SIGTERM)
        ended = watch.next()
        assert isinstance(ended, grpc.RpcError)
        assert ended.code() == grpc.StatusCode.UNAVAILABLE
        for version in (2, 3):
            registry.SetAlias(pb.SetAliasRequest(name="iris", alias="champion", version=version))
        again = Watch(second, keys=["champion"], after_event_id=event.event_id)
        assert [event.version for event in again.events(2)] == [2, 3]
        assert again.synced() > event.event_id
        assert one.wait_exit() == 0
        again.call.cancel()
