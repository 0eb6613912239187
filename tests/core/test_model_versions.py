"""The rules of versions, and of the stages and aliases that say which is which."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from registering import ANN, BOB, ELSEWHERE, Desk, told

from penstock_server.model.access import Caller
from penstock_server.model.errors import (
    AliasMoved,
    AlreadyExists,
    FailedPrecondition,
    Guarded,
    InvalidArgument,
    NotActive,
    NotFound,
)
from penstock_server.model.owners import of_run
from penstock_server.model.registry import EventKind, ModelVersion, NewVersion, Ref, Stage, VersionStatus
from penstock_server.model.runs import format_run_id, new_run_id
from penstock_server.postgres import database, owners, registry, runs
from penstock_server.postgres.database import Database

TASKS = 50


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


async def guard(db: Database, target: str) -> None:
    async with db.connection() as conn:
        await conn.execute("INSERT INTO promotion_policies SELECT id, 1, $1, '{}', 1 FROM registered_models", target)


async def test_a_version_of_a_run_has_what_it_was_given(desk: Desk) -> None:
    run = await desk.run("model/weights.pt")
    await desk.models.create(ANN, "iris")
    new = NewVersion("iris", run_id=run.id, path="model", description="first", tags={"a": "b"})
    made = await desk.versions.create(BOB, new)
    run_id = format_run_id(run.id)
    assert made == ModelVersion(
        id=made.id,
        model_id=made.model_id,
        name="iris",
        version=1,
        run_id=run.id,
        path="model",
        source=f"runs:/{run_id}/model",
        status=VersionStatus.READY,
        status_message="",
        stage=Stage.NONE,
        description="first",
        created_by="bob",
        created_ms=made.created_ms,
        updated_ms=made.updated_ms,
        tags={"a": "b"},
    )
    assert await desk.versions.get(ANN, "iris", 1) == made
    given = {"source": made.source, "run_id": run_id, "path": "model", "status": "ready", "description": "first"}
    assert [told(event) for event in await desk.history("iris", version=1)] == [
        (EventKind.VERSION_CREATED, 1, "", {}, given),
        (EventKind.VERSION_TAG_SET, 1, "a", {}, {"value": "b"}),
    ]
    model = await desk.models.get(ANN, "iris")
    assert (model.last_version, model.latest) == (1, [made])
    assert model.updated_ms >= made.created_ms


@pytest.mark.parametrize("path", ["model", "model/", "model/weights.pt", ""])
async def test_the_source_is_a_file_a_directory_or_all_of_a_run(desk: Desk, path: str) -> None:
    run = await desk.run("model/weights.pt", "plot.png")
    by_path = await desk.of_run(run, path)
    by_source = await desk.version(source=f"runs:/{run.id}/{path}")
    assert (by_path.path, by_path.run_id) == (path.rstrip("/"), run.id)
    assert (by_source.path, by_source.run_id, by_source.source) == (by_path.path, by_path.run_id, by_path.source)
    assert by_path.source == f"runs:/{format_run_id(run.id)}/{path}".rstrip("/")


@pytest.mark.parametrize("source", ["hf://org/model", "models", "/mnt/models/iris", "gs://b/ü?v=1#x", "x" * 5_000])
async def test_another_source_is_kept_as_it_is(desk: Desk, source: str) -> None:
    made = await desk.version(source=source)
    assert (made.source, made.run_id, made.path, made.status) == (source, None, "", VersionStatus.READY)


async def test_a_run_may_stand_beside_a_source_elsewhere(desk: Desk) -> None:
    run = await desk.run()
    made = await desk.version(run_id=run.id)
    assert (made.run_id, made.source, made.path) == (run.id, ELSEWHERE, "")
    with pytest.raises(FailedPrecondition, match="iris version 1 stands on run"):
        await desk.runs.delete(ANN, run.id)


async def test_the_source_of_another_version_is_taken_over(desk: Desk) -> None:
    run = await desk.run("model")
    original = await desk.of_run(run)
    await desk.versions.set_alias(ANN, "iris", "champion", 1)
    for ref in ("models:/iris/1", "models:/iris@champion", "models:/iris/latest"):
        copy = await desk.version("lily", source=ref)
        assert (copy.source, copy.run_id, copy.path) == (original.source, run.id, "model")
    with pytest.raises(NotFound, match="model version 'iris/7'"):
        await desk.version("lily", source="models:/iris/7")
    with pytest.raises(InvalidArgument, match=r"^run_id: is not the run of the source"):
        await desk.version("lily", source="models:/iris/1", run_id=new_run_id())
    with pytest.raises(InvalidArgument, match=r"^source: .* names no version"):
        await desk.version("lily", source="models:/iris")


async def test_what_a_version_comes_from_must_be_there(desk: Desk) -> None:
    run = await desk.run("model/weights.pt")
    bare, deleted = await desk.run(), await desk.run("model")
    await desk.runs.delete(ANN, deleted.id)
    unknown = new_run_id()
    uses: list[tuple[type[Exception], str, dict[str, object]]] = [
        (NotFound, "artifact 'nope'", {"run_id": run.id, "path": "nope"}),
        (NotFound, "artifact 'model/weights'", {"run_id": run.id, "path": "model/weights"}),
        (NotFound, "artifact 'mod'", {"source": f"runs:/{run.id}/mod"}),
        (NotFound, "run '", {"run_id": unknown, "path": "model"}),
        (NotFound, "run '", {"run_id": unknown, "source": ELSEWHERE}),
        (NotFound, "run '", {"run_id": unknown, "path": "model", "status": VersionStatus.PENDING}),
        (NotActive, "is deleted", {"run_id": deleted.id, "path": "model"}),
        (NotActive, "is deleted", {"run_id": deleted.id, "path": "model", "status": VersionStatus.PENDING}),
        (FailedPrecondition, "has no artifacts", {"run_id": bare.id}),
    ]
    for error, problem, fields in uses:
        with pytest.raises(error, match=problem):
            await desk.versions.create(ANN, NewVersion("iris", create_model=True, **fields))  # type: ignore[arg-type]
    # Nothing of it is left, neither a number nor a model.
    with pytest.raises(NotFound, match="registered model 'iris'"):
        await desk.versions.create(ANN, NewVersion("iris", source=ELSEWHERE))
    assert (await desk.version()).version == 1


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("source", {}),
        ("source", {"source": "  "}),
        ("source", {"source": "s3://a\nb"}),
        ("source", {"source": "s3://a\x9bb"}),
        ("source", {"source": "s3://a\0b"}),
        ("source", {"source": "x" * 5_001}),
        ("source", {"source": "runs:/"}),
        ("source", {"source": "runs:/nope/model"}),
        ("source", {"source": "runs:/0190a0a00000700080000000000000000"}),
        ("source", {"source": f"runs:/{new_run_id()}/../model"}),
        ("path", {"source": ELSEWHERE, "path": "model"}),
        ("path", {"run_id": new_run_id(), "path": "/model"}),
        ("run_id", {"run_id": new_run_id(), "source": f"runs:/{new_run_id()}/model"}),
        ("description", {"source": ELSEWHERE, "description": "x" * 5_001}),
        ("request_id", {"source": ELSEWHERE, "request_id": "x" * 251}),
        ("tag key", {"source": ELSEWHERE, "tags": {"": ""}}),
        ("value of tag 'a'", {"source": ELSEWHERE, "tags": {"a": "x" * 100_001}}),
    ],
)
async def test_bad_input_makes_no_version(desk: Desk, field: str, fields: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field}: "):
        await desk.versions.create(ANN, NewVersion("iris", create_model=True, **fields))  # type: ignore[arg-type]
    assert await desk.count() == 0


async def test_an_unknown_model_has_no_versions(desk: Desk) -> None:
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: desk.versions.create(ANN, NewVersion("iris", source=ELSEWHERE)),
        lambda: desk.versions.get(ANN, "iris", 1),
        lambda: desk.versions.resolve(ANN, Ref("iris")),
        lambda: desk.versions.latest(ANN, "iris"),
        lambda: desk.versions.update(ANN, "iris", 1),
        lambda: desk.versions.update(ANN, "iris", 1, status=VersionStatus.READY),
        lambda: desk.versions.delete(ANN, "iris", 1),
        lambda: desk.versions.set_tags(ANN, "iris", 1, {}),
        lambda: desk.versions.delete_tags(ANN, "iris", 1, []),
        lambda: desk.versions.move_stage(ANN, "iris", 1, Stage.STAGING),
        lambda: desk.versions.set_alias(ANN, "iris", "champion", 1),
        lambda: desk.versions.delete_alias(ANN, "iris", "champion"),
    ]
    for use in uses:
        with pytest.raises(NotFound, match="registered model 'iris' does not exist"):
            await use()
    await desk.models.create(ANN, "iris")
    for use in uses[4:-1]:
        with pytest.raises(NotFound, match="model version 'iris/1' does not exist"):
            await use()
    for number in (0, -1, 2**31):
        with pytest.raises(InvalidArgument, match=r"^version: .* is no version's number"):
            await desk.versions.get(ANN, "iris", number)


async def test_the_same_request_makes_one_version(desk: Desk) -> None:
    run = await desk.run("model")
    new = NewVersion("iris", run_id=run.id, path="model", request_id="1", create_model=True)
    made = await desk.versions.create(ANN, new)
    assert await desk.versions.create(ANN, new) == made
    assert (await desk.version(request_id="2")).version == 2
    assert await desk.version("lily", request_id="1") == made  # the same request, whatever the model is called
    await desk.runs.delete(ANN, run.id, force=True)
    assert (await desk.versions.create(ANN, new)).id == made.id
    assert len(await desk.history(kinds=[EventKind.VERSION_CREATED])) == 2


async def test_the_same_request_at_once_makes_one_version(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.version(request_id="r") for _ in range(20)))
    assert {version.version for version in made} == {1}
    assert (await desk.models.get(ANN, "iris")).last_version == 1
    assert await desk.count() == 2


async def test_racing_makers_get_numbers_without_a_gap(desk: Desk) -> None:
    """Some of them fail half way, and leave no gap either."""
    run = await desk.run("model")

    async def make(number: int) -> ModelVersion | None:
        if number % 5:
            return await desk.version(tags={"maker": str(number)})
        with pytest.raises(NotFound):
            await desk.of_run(run, "nope")
        return None

    made = [version for version in await asyncio.gather(*map(make, range(TASKS))) if version]
    assert sorted(version.version for version in made) == list(range(1, 41))
    events = await desk.history(kinds=[EventKind.VERSION_CREATED])
    assert [event.what.version for event in events] == list(range(1, 41))
    assert (await desk.models.get(ANN, "iris")).last_version == 40


async def test_a_number_is_not_given_again(desk: Desk) -> None:
    await desk.version()
    await desk.version()
    await desk.versions.delete(ANN, "iris", 2)
    assert (await desk.version()).version == 3
    with pytest.raises(NotFound, match="model version 'iris/2'"):
        await desk.versions.get(ANN, "iris", 2)


async def test_references_name_versions(desk: Desk) -> None:
    for _ in range(4):
        await desk.version()
    for number in (1, 2):
        await desk.versions.move_stage(ANN, "iris", number, Stage.PRODUCTION)
    await desk.versions.set_alias(ANN, "iris", "champion", 1)
    await desk.versions.set_alias(ANN, "iris", "Champion", 3)
    for ref, number in (
        (Ref("iris", version=3), 3),
        (Ref("iris", stage=Stage.PRODUCTION), 2),
        (Ref("iris", stage=Stage.NONE), 4),
        (Ref("iris"), 4),
        (Ref("iris", alias="champion"), 1),
        (Ref("iris", alias="Champion"), 3),
    ):
        found = await desk.versions.resolve(ANN, ref)
        assert found == await desk.versions.get(ANN, "iris", number)
    for ref, problem in (
        (Ref("iris", version=5), "model version 'iris/5'"),
        (Ref("iris", stage=Stage.STAGING), "model version 'iris/Staging'"),
        (Ref("iris", alias="nope"), "alias 'iris@nope'"),
    ):
        with pytest.raises(NotFound, match=f"{problem} does not exist"):
            await desk.versions.resolve(ANN, ref)
    await desk.models.create(ANN, "lily")
    with pytest.raises(NotFound, match="model version 'lily/latest'"):
        await desk.versions.resolve(ANN, Ref("lily"))


async def test_latest_is_the_newest_of_each_stage(desk: Desk) -> None:
    for _ in range(4):
        await desk.version()
    for number in (1, 2):
        await desk.versions.move_stage(ANN, "iris", number, Stage.PRODUCTION)
    everything = await desk.versions.latest(ANN, "iris")
    assert [(version.stage, version.version) for version in everything] == [(Stage.NONE, 4), (Stage.PRODUCTION, 2)]
    assert await desk.versions.latest(ANN, "iris", [Stage.PRODUCTION, Stage.STAGING]) == everything[1:]


async def test_changes_of_a_version(desk: Desk) -> None:
    run = await desk.run()
    made = await desk.pending(run)
    assert made.status is VersionStatus.PENDING
    with pytest.raises(NotFound, match="artifact 'model'"):
        await desk.versions.update(ANN, "iris", 1, status=VersionStatus.READY)
    await desk.put(run.id, "model")
    ready = await desk.versions.update(BOB, "iris", 1, description="d", status=VersionStatus.READY)
    assert (ready.status, ready.description) == (VersionStatus.READY, "d")
    assert await desk.last() == (
        EventKind.VERSION_UPDATED,
        1,
        "",
        {"description": "", "status": "pending"},
        {"description": "d", "status": "ready"},
    )
    count = await desk.count()
    same = await desk.versions.update(ANN, "iris", 1, "d", VersionStatus.READY, "")
    assert (same, await desk.count()) == (ready, count)
    failed = await desk.versions.update(ANN, "iris", 1, status=VersionStatus.FAILED, status_message="m" * 1_000)
    assert (failed.status, failed.status_message) == (VersionStatus.FAILED, "m" * 1_000)
    assert failed.updated_ms >= ready.updated_ms > made.created_ms - 1
    with pytest.raises(FailedPrecondition, match="iris version 1 is failed and never pending again"):
        await desk.versions.update(ANN, "iris", 1, status=VersionStatus.PENDING)
    for field, fields in (
        ("description", {"description": "x" * 5_001}),
        ("status_message", {"status_message": "x" * 1_001}),
    ):
        with pytest.raises(InvalidArgument, match=f"^{field}: "):
            await desk.versions.update(ANN, "iris", 1, **fields)


async def test_tags_of_a_version(desk: Desk) -> None:
    await desk.version(tags={"a": "1", "b": "2"})
    await desk.versions.set_tags(ANN, "iris", 1, {"a": "1", "b": "3"})
    assert await desk.last() == (EventKind.VERSION_TAG_SET, 1, "b", {"value": "2"}, {"value": "3"})
    with pytest.raises(NotFound, match="tag 'nope'"):
        await desk.versions.delete_tags(ANN, "iris", 1, ["a", "nope"])
    await desk.versions.delete_tags(ANN, "iris", 1, ["a"])
    assert await desk.last() == (EventKind.VERSION_TAG_DELETED, 1, "a", {"value": "1"}, {})
    assert (await desk.versions.get(ANN, "iris", 1)).tags == {"b": "3"}
    with pytest.raises(InvalidArgument, match="tag key"):
        await desk.versions.set_tags(ANN, "iris", 1, {"": "x"})
    with pytest.raises(InvalidArgument, match="tag key"):
        await desk.versions.delete_tags(ANN, "iris", 1, ["x" * 251])


async def test_a_deleted_version_takes_its_aliases_along(desk: Desk, db: Database) -> None:
    await desk.version()
    await desk.version()
    for alias, number in (("champion", 1), ("beta", 1), ("other", 2)):
        await desk.versions.set_alias(ANN, "iris", alias, number)
    async with db.connection() as conn:
        await conn.execute(
            "INSERT INTO promotions (model_id, workspace_id, version, target, gates, archive_others, requested_by,"
            " comment, created_ms) SELECT id, 1, v, '@champion', '{}', false, 'ann', '', 0"
            " FROM registered_models, generate_series(1, 2) v"
        )
    count = await desk.count()
    await desk.versions.delete(ANN, "iris", 1)
    assert [told(event)[:3] for event in (await desk.history())[count:]] == [
        (EventKind.ALIAS_DELETED, 1, "beta"),
        (EventKind.ALIAS_DELETED, 1, "champion"),
        (EventKind.VERSION_DELETED, 1, ""),
    ]
    assert (await desk.models.get(ANN, "iris")).aliases == {"other": 2}
    async with db.connection() as conn:
        assert [tuple(row) for row in await conn.fetch("SELECT version, state FROM promotions ORDER BY version")] == [
            (1, 4),
            (2, 1),
        ]


async def test_a_version_goes_through_stages(desk: Desk) -> None:
    for _ in range(3):
        await desk.version()
    for number in (1, 2):
        await desk.versions.move_stage(ANN, "iris", number, Stage.PRODUCTION)
    count = await desk.count()
    moved = await desk.versions.move_stage(BOB, "iris", 3, Stage.PRODUCTION, archive_others=True)
    assert moved.stage is Stage.PRODUCTION
    production, archived = {"stage": "Production"}, {"stage": "Archived"}
    assert [told(event) for event in (await desk.history())[count:]] == [
        (EventKind.STAGE_CHANGED, 1, "archived", production, archived),
        (EventKind.STAGE_CHANGED, 2, "archived", production, archived),
        (EventKind.STAGE_CHANGED, 3, "", {"stage": "None"}, production),
    ]
    again = await desk.versions.move_stage(BOB, "iris", 3, Stage.PRODUCTION, archive_others=True)
    assert (again, await desk.count()) == (moved, count + 3)
    for stage in (Stage.NONE, Stage.ARCHIVED):
        with pytest.raises(InvalidArgument, match="archive_others"):
            await desk.versions.move_stage(BOB, "iris", 3, stage, archive_others=True)
    assert (await desk.versions.move_stage(BOB, "iris", 3, Stage.NONE)).stage is Stage.NONE


async def test_an_alias_moves(desk: Desk) -> None:
    run = await desk.run("model")
    await desk.of_run(run)
    await desk.version()
    assert await desk.versions.set_alias(ANN, "iris", "champion", 1) == 0
    first = {"version": "1", "run_id": format_run_id(run.id)}
    assert await desk.last() == (EventKind.ALIAS_SET, 1, "champion", {}, first)
    before = (await desk.versions.get(ANN, "iris", 1)).updated_ms
    assert await desk.versions.set_alias(ANN, "iris", "champion", 2) == 1
    second = {"version": "2", "run_id": ""}
    assert await desk.last() == (EventKind.ALIAS_SET, 2, "champion", first, second)
    left, holder = [await desk.versions.get(ANN, "iris", number) for number in (1, 2)]
    assert (left.aliases, holder.aliases) == ([], ["champion"])
    assert left.updated_ms >= before
    count = await desk.count()
    assert await desk.versions.set_alias(BOB, "iris", "champion", 2) == 2
    assert await desk.count() == count
    await desk.versions.set_alias(ANN, "iris", "beta", 2)
    assert (await desk.versions.get(ANN, "iris", 2)).aliases == ["beta", "champion"]
    assert await desk.versions.delete_alias(ANN, "iris", "champion") == 2
    assert await desk.last() == (EventKind.ALIAS_DELETED, 2, "champion", second, {})
    with pytest.raises(NotFound, match="alias 'iris@champion'"):
        await desk.versions.delete_alias(ANN, "iris", "champion")
    with pytest.raises(NotFound, match="model version 'iris/7'"):
        await desk.versions.set_alias(ANN, "iris", "champion", 7)


async def test_an_alias_that_is_not_where_it_is_expected_stays(desk: Desk) -> None:
    for _ in range(3):
        await desk.version()

    async def refused(expected: int) -> AliasMoved:
        with pytest.raises(AliasMoved) as caught:
            await desk.versions.set_alias(ANN, "iris", "champion", 3, expected=expected)
        return caught.value

    never = await refused(2)
    assert (never.version, never.moved_by, never.moved_ms) == (0, "", 0)
    assert "alias 'champion' of 'iris' names no version, not version 2: it never named one" in str(never)
    assert await desk.versions.set_alias(BOB, "iris", "champion", 1, expected=0) == 0
    for expected in (0, 2):
        error = await refused(expected)
        assert (error.model, error.alias, error.version, error.moved_by) == ("iris", "champion", 1, "bob")
        (event,) = await desk.history(kinds=[EventKind.ALIAS_SET])
        assert abs(error.moved_ms - event.at_ms) < 10_000
        assert re.search(r"bob moved it at 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ; .* with expected=1$", str(error))
    with pytest.raises(AliasMoved):
        await desk.versions.delete_alias(ANN, "iris", "champion", expected=2)
    assert await desk.versions.delete_alias(BOB, "iris", "champion", expected=1) == 1
    gone = await refused(1)
    assert (gone.version, gone.moved_by) == (0, "bob")
    with pytest.raises(AliasMoved):
        await desk.versions.delete_alias(ANN, "iris", "champion", expected=1)
    assert await desk.versions.set_alias(ANN, "iris", "champion", 3, expected=0) == 0
    with pytest.raises(InvalidArgument, match=r"^expected: "):
        await desk.versions.set_alias(ANN, "iris", "champion", 3, expected=-1)


@pytest.mark.parametrize("expected", [None, 0, 1])
async def test_of_racing_movers_one_wins_and_the_others_learn_who(desk: Desk, expected: int | None) -> None:
    for _ in range(TASKS + 1):
        await desk.version()
    if expected:
        await desk.versions.set_alias(ANN, "iris", "champion", expected)
    count = await desk.count()

    async def move(number: int) -> int | AliasMoved:
        caller = Caller("tester", ANN.workspace_id, f"team {number}", str(number))
        try:
            return await desk.versions.set_alias(caller, "iris", "champion", number, expected)
        except AliasMoved as error:
            return error

    results = await asyncio.gather(*(move(number) for number in range(2, TASKS + 2)))
    winners = [number for number, result in enumerate(results, 2) if not isinstance(result, AliasMoved)]
    holder = await desk.versions.resolve(ANN, Ref("iris", alias="champion"))
    events = (await desk.history())[count:]
    assert holder.version == events[-1].what.version
    if expected is None:  # each moves it, from where the one before had it
        assert len(winners) == len(events) == TASKS
        moves = [(int(event.what.before.get("version", 0)), event.what.version) for event in events]
        assert [after for _, after in moves[:-1]] == [before for before, _ in moves[1:]]
        assert sorted(moves, key=lambda move: move[1]) == [(results[to - 2], to) for to in range(2, TASKS + 2)]
    else:
        assert winners == [holder.version]
        assert len(events) == 1
        assert {(lost.version, lost.moved_by) for lost in results if isinstance(lost, AliasMoved)} == {
            (holder.version, f"team {holder.version}")
        }


@pytest.mark.parametrize(
    "alias",
    [
        "",
        "1",
        "v1",
        "V12",
        "latest",
        "Latest",
        "a b",
        "a/b",
        "a@b",
        "a:b",
        "a.b",
        "a\n",
    ],
)
async def test_bad_aliases_are_refused(desk: Desk, alias: str) -> None:
    await desk.version()
    with pytest.raises(InvalidArgument, match=r"^alias: "):
        await desk.versions.set_alias(ANN, "iris", alias, 1)
    with pytest.raises((InvalidArgument, NotFound)):
        await desk.versions.delete_alias(ANN, "iris", alias)
    assert (await desk.models.get(ANN, "iris")).aliases == {}


@pytest.mark.parametrize(
    "alias", ["champion", "v", "v1a", "latest-2", "ü_1", "-", "x" * 255, "production", "None", "Archived"]
)
async def test_other_aliases_are_good(desk: Desk, alias: str) -> None:
    await desk.version()
    await desk.versions.set_alias(ANN, "iris", alias, 1)
    assert (await desk.versions.resolve(ANN, Ref("iris", alias=alias))).version == 1


async def test_what_is_guarded_is_left_but_not_reached(desk: Desk, db: Database) -> None:
    await desk.version()
    await desk.versions.set_alias(ANN, "iris", "champion", 1)
    await desk.versions.move_stage(ANN, "iris", 1, Stage.PRODUCTION)
    await desk.version()
    await guard(db, "@champion")
    await guard(db, "Production")
    with pytest.raises(Guarded, match="@champion of 'iris' is guarded by "):
        await desk.versions.set_alias(ANN, "iris", "champion", 2)
    with pytest.raises(Guarded, match="Production of 'iris' is guarded by "):
        await desk.versions.move_stage(ANN, "iris", 2, Stage.PRODUCTION)
    await desk.versions.set_alias(ANN, "iris", "challenger", 2)
    await desk.versions.move_stage(ANN, "iris", 2, Stage.STAGING)
    assert (await desk.versions.move_stage(ANN, "iris", 1, Stage.ARCHIVED)).stage is Stage.ARCHIVED
    assert await desk.versions.delete_alias(ANN, "iris", "champion") == 1


async def test_who_waits_for_a_model_keeps_nobody_from_the_run(desk: Desk) -> None:
    run = await desk.run("model")
    await desk.of_run(run)
    async with desk.db.transaction() as conn:
        await registry.lock(conn, ANN.workspace_id, "iris")
        pid = await conn.fetchval("SELECT pg_backend_pid()")
        creating = asyncio.create_task(desk.of_run(run))
        blocked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid)))"
        async with desk.db.connection() as looking:  # a transaction would see the same activity all along
            while not await looking.fetchval(blocked, pid):
                await asyncio.sleep(0.01)
        async with desk.db.transaction() as other:
            await database.limit_locks(other, 0.2)
            await runs.lock_active(other, ANN.workspace_id, run.id)
            await owners.hold_files(other, ANN.workspace_id, of_run(run.id))
    assert (await creating).version == 2


async def test_a_request_after_a_renaming_makes_no_second_version(desk: Desk) -> None:
    made = await desk.version(request_id="again")
    await desk.models.update(ANN, "iris", new_name="lily")
    again = await desk.version(request_id="again")
    assert (again.id, again.name, again.version) == (made.id, "lily", 1)
    with pytest.raises(NotFound):
        await desk.models.get(ANN, "iris")


async def test_crossed_renamings_wait_for_each_other(desk: Desk) -> None:
    await desk.models.create(ANN, "a")
    await desk.models.create(ANN, "b")
    for _ in range(20):
        outcomes = await asyncio.gather(
            desk.models.update(ANN, "a", new_name="b"),
            desk.models.update(BOB, "b", new_name="a"),
            return_exceptions=True,
        )
        assert [type(each) for each in outcomes] == [AlreadyExists] * 2
