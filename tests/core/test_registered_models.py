"""The rules of registered models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from registering import ANN, BOB, ELSEWHERE, Desk, told

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from penstock_server.model.registry import EventKind, Policy, Ref, RegisteredModel, Stage
from penstock_server.postgres.database import Database

LONG = "x" * 100_001


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


async def test_a_model_has_what_it_was_given(desk: Desk) -> None:
    made = await desk.models.create(ANN, "Größe 1", "of flowers", {"team": "α", "empty": ""})
    assert made == RegisteredModel(
        id=made.id,
        name="Größe 1",
        description="of flowers",
        last_version=0,
        created_by="ann",
        created_ms=made.created_ms,
        updated_ms=made.updated_ms,
        tags={"team": "α", "empty": ""},
    )
    assert 0 < made.created_ms <= made.updated_ms
    assert await desk.models.get(BOB, "Größe 1") == made
    assert [told(event) for event in await desk.history("Größe 1")] == [
        (EventKind.MODEL_CREATED, 0, "", {}, {"name": "Größe 1", "description": "of flowers"}),
        (EventKind.MODEL_TAG_SET, 0, "team", {}, {"value": "α"}),
        (EventKind.MODEL_TAG_SET, 0, "empty", {}, {"value": ""}),
    ]


async def test_a_model_shows_aliases_the_newest_of_each_stage_and_policies(desk: Desk, db: Database) -> None:
    for _ in range(4):
        await desk.version()
    await desk.versions.set_alias(ANN, "iris", "champion", 2)
    await desk.versions.set_alias(ANN, "iris", "beta", 4)
    for number in (1, 3):
        await desk.versions.move_stage(ANN, "iris", number, Stage.PRODUCTION)
    async with db.connection() as conn:
        await conn.execute(
            "INSERT INTO promotion_policies SELECT id, 1, '@champion', '{metrics.f1 > 0}', 2 FROM registered_models"
        )
    found = await desk.models.get(ANN, "iris")
    assert found.aliases == {"beta": 4, "champion": 2}
    assert list(found.aliases) == ["beta", "champion"]
    assert [(version.stage, version.version) for version in found.latest] == [(Stage.NONE, 4), (Stage.PRODUCTION, 3)]
    assert found.latest[0].aliases == ["beta"]
    assert found.policies == [Policy("@champion", ("metrics.f1 > 0",), 2)]
    assert found.last_version == 4
    (searched,), token = await desk.models.search(ANN, filter="alias = 'champion'")
    assert (searched, token) == (found, "")


async def test_a_name_is_given_once(desk: Desk) -> None:
    await desk.models.create(ANN, "iris")
    with pytest.raises(AlreadyExists, match="registered model 'iris' already exists"):
        await desk.models.create(BOB, "iris")
    await desk.models.create(ANN, "Iris")
    assert await desk.count() == 2


async def test_the_same_request_makes_one_model(desk: Desk) -> None:
    made = await desk.models.create(ANN, "iris", request_id="1")
    renamed = await desk.models.update(ANN, "iris", new_name="lily")
    assert await desk.models.create(ANN, "iris", request_id="1") == renamed
    assert renamed.id == made.id
    assert (await desk.models.create(ANN, "iris", request_id="2")).id != made.id
    with pytest.raises(AlreadyExists):
        await desk.models.create(ANN, "lily", request_id="3")


async def test_workspaces_do_not_see_each_other(desk: Desk, db: Database) -> None:
    async with db.connection() as conn:
        other = await conn.fetchval("INSERT INTO workspaces (name) VALUES ('other') RETURNING id")
    stranger = replace(ANN, workspace_id=WorkspaceId(other))
    await desk.version()
    await desk.versions.set_alias(ANN, "iris", "champion", 1)
    with pytest.raises(NotFound):
        await desk.models.get(stranger, "iris")
    with pytest.raises(NotFound):
        await desk.versions.resolve(stranger, Ref("iris", alias="champion"))
    assert await desk.events.list(stranger) == ([], "")
    assert await desk.events.list(stranger, "iris") == ([], "")
    assert (await desk.models.create(stranger, "iris")).aliases == {}


async def test_renaming_carries_everything(desk: Desk, db: Database) -> None:
    await desk.version(tags={"a": "b"})
    await desk.models.set_tags(ANN, "iris", {"team": "red"})
    await desk.versions.set_alias(ANN, "iris", "champion", 1)
    await desk.versions.move_stage(ANN, "iris", 1, Stage.STAGING)
    before = await desk.models.get(ANN, "iris")
    history = await desk.history("iris")
    renamed = await desk.models.update(BOB, "iris", new_name="lily")
    assert renamed == replace(
        before,
        name="lily",
        updated_ms=renamed.updated_ms,
        latest=[replace(before.latest[0], name="lily")],
    )
    with pytest.raises(NotFound, match="registered model 'iris'"):
        await desk.models.get(ANN, "iris")
    with pytest.raises(NotFound, match="registered model 'iris'"):
        await desk.versions.resolve(ANN, Ref("iris", alias="champion"))
    assert (await desk.versions.resolve(ANN, Ref("lily", alias="champion"))).tags == {"a": "b"}
    since = await desk.history("lily")
    assert since[:-1] == history
    assert told(since[-1]) == (EventKind.MODEL_RENAMED, 0, "", {"name": "iris"}, {"name": "lily"})
    assert {event.name for event in since} == {"iris"}
    # By the name at the time, while none is called so now; then that one's.
    assert await desk.history("iris") == since
    await desk.models.create(ANN, "iris")
    assert (await desk.history("iris"))[-1].what.kind is EventKind.MODEL_CREATED  # after what was called so before
    assert (await desk.version("lily")).version == 2


async def test_what_policies_guard_keeps_its_name(desk: Desk, db: Database) -> None:
    """Else its name could be taken by a model without policies, and its aliases be set there."""
    await desk.version()
    async with db.connection() as conn:
        await conn.execute(
            "INSERT INTO promotion_policies SELECT id, workspace_id, target, '{}', 0 FROM registered_models,"
            " unnest('{@a,@b,@c,Staging}'::text[]) target"
        )
    before = await desk.history("iris")
    with pytest.raises(FailedPrecondition) as caught:
        await desk.models.update(BOB, "iris", new_name="lily", description="a flower")
    assert str(caught.value) == (
        "'iris' is guarded (@a, @b, @c, …): delete its policies first, which takes PERMISSION_MANAGE, then rename it"
    )
    assert (await desk.models.get(ANN, "iris")).description == ""
    assert await desk.history("iris") == before
    # It is described still, and a rename to the same name is none.
    assert (await desk.models.update(BOB, "iris", "iris", "a flower")).description == "a flower"
    async with db.connection() as conn:
        await conn.execute("DELETE FROM promotion_policies")
    assert (await desk.models.update(BOB, "iris", new_name="lily")).name == "lily"


async def test_a_taken_name_is_not_given_by_renaming(desk: Desk) -> None:
    await desk.models.create(ANN, "iris")
    await desk.models.create(ANN, "lily")
    with pytest.raises(AlreadyExists, match="'lily'"):
        await desk.models.update(ANN, "iris", new_name="lily", description="of flowers")
    assert (await desk.models.get(ANN, "iris")).description == ""
    assert await desk.count() == 2


async def test_what_changes_nothing_is_no_event(desk: Desk) -> None:
    made = await desk.models.create(ANN, "iris", "of flowers", {"a": "b"})
    count = await desk.count()
    assert await desk.models.update(ANN, "iris") == made
    assert await desk.models.update(ANN, "iris", new_name="iris", description="of flowers") == made
    await desk.models.set_tags(ANN, "iris", {"a": "b"})
    await desk.models.set_tags(ANN, "iris", {})
    await desk.models.delete_tags(ANN, "iris", [])
    assert await desk.models.get(ANN, "iris") == made
    assert await desk.count() == count


async def test_events_say_who_when_and_in_which_request(desk: Desk) -> None:
    await desk.models.create(ANN, "iris", "of flowers")
    changed = await desk.models.update(BOB, "iris", description="")
    first, second = await desk.history("iris")
    assert (first.by, first.request_id, second.by, second.request_id) == ("ann", ANN.request_id, "bob", BOB.request_id)
    assert first.id < second.id
    assert 0 < first.at_ms <= second.at_ms
    assert changed.updated_ms <= second.at_ms
    assert told(second) == (EventKind.MODEL_UPDATED, 0, "", {"description": "of flowers"}, {"description": ""})


async def test_tags_are_set_replaced_and_removed(desk: Desk) -> None:
    await desk.models.create(ANN, "iris", tags={"a": "1", "b": "2"})
    await desk.models.set_tags(ANN, "iris", {"a": "1", "b": "3", "c": "u" * 100_000})
    assert await desk.last() == (EventKind.MODEL_TAG_SET, 0, "c", {}, {"value": "u" * 100_000})
    assert [told(event) for event in await desk.history("iris", key="b")][-1] == (
        EventKind.MODEL_TAG_SET,
        0,
        "b",
        {"value": "2"},
        {"value": "3"},
    )
    with pytest.raises(NotFound, match="tag 'nope'"):
        await desk.models.delete_tags(ANN, "iris", ["a", "nope"])
    await desk.models.delete_tags(ANN, "iris", ["c", "c"])
    assert (await desk.models.get(ANN, "iris")).tags == {"a": "1", "b": "3"}
    assert await desk.last() == (EventKind.MODEL_TAG_DELETED, 0, "c", {"value": "u" * 100_000}, {})


async def test_a_deleted_model_leaves_its_history(desk: Desk) -> None:
    await desk.version()
    await desk.version()
    await desk.versions.set_alias(ANN, "iris", "champion", 2)
    count = len(await desk.history("iris"))
    await desk.models.delete(BOB, "iris")
    for use in (desk.models.get(ANN, "iris"), desk.models.delete(ANN, "iris"), desk.versions.get(ANN, "iris", 1)):
        with pytest.raises(NotFound, match="registered model 'iris'"):
            await use
    gone = {"source": ELSEWHERE, "run_id": "", "path": "", "stage": "None"}
    assert [told(event) for event in (await desk.history("iris"))[count:]] == [
        (EventKind.ALIAS_DELETED, 2, "champion", {"version": "2", "run_id": ""}, {}),
        (EventKind.VERSION_DELETED, 1, "", gone, {}),
        (EventKind.VERSION_DELETED, 2, "", gone, {}),
        (EventKind.MODEL_DELETED, 0, "", {"name": "iris"}, {}),
    ]
    assert (await desk.version()).version == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "must not be empty"),
        ("  ", "must not be blank"),
        ("a/b", "has a / in it"),
        ("a:b", "has a : in it"),
        ("x" * 257, "the limit is 256"),
        ("a\0b", "has a NUL character"),
        ("a\nb", "has a control character at position 1"),
        ("a\u2066b", "has a control character"),
        ("a\ud800", "half of a surrogate pair"),
    ],
)
async def test_bad_names_are_refused_everywhere(desk: Desk, name: str, problem: str) -> None:
    await desk.models.create(ANN, "iris")
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: desk.models.create(ANN, name),
        lambda: desk.models.get(ANN, name),
        lambda: desk.models.update(ANN, name, description=""),
        lambda: desk.models.update(ANN, "iris", new_name=name),
        lambda: desk.models.delete(ANN, name),
        lambda: desk.models.set_tags(ANN, name, {}),
        lambda: desk.models.delete_tags(ANN, name, []),
        lambda: desk.version(name),
        lambda: desk.versions.get(ANN, name, 1),
        lambda: desk.versions.latest(ANN, name),
        lambda: desk.versions.update(ANN, name, 1),
        lambda: desk.versions.delete(ANN, name, 1),
        lambda: desk.versions.set_tags(ANN, name, 1, {}),
        lambda: desk.versions.delete_tags(ANN, name, 1, []),
        lambda: desk.versions.move_stage(ANN, name, 1, Stage.STAGING),
        lambda: desk.versions.set_alias(ANN, name, "champion", 1),
        lambda: desk.versions.delete_alias(ANN, name, "champion"),
    ]
    for use in uses:
        with pytest.raises(InvalidArgument, match=problem):
            await use()
    assert await desk.count() == 1


@pytest.mark.parametrize("name", ["x" * 256, "a@b", "a b", "models", "3", "latest", "ü?&#%"])
async def test_other_names_are_good(desk: Desk, name: str) -> None:
    await desk.version(name)
    assert (await desk.versions.get(ANN, name, 1)).name == name


async def test_over_long_text_is_refused(desk: Desk) -> None:
    await desk.models.create(ANN, "iris")
    uses: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("description", lambda: desk.models.create(ANN, "lily", "x" * 5_001)),
        ("description", lambda: desk.models.update(ANN, "iris", description="x" * 5_001)),
        ("request_id", lambda: desk.models.create(ANN, "lily", request_id="x" * 251)),
        ("tag key", lambda: desk.models.create(ANN, "lily", tags={"": "x"})),
        ("tag key", lambda: desk.models.create(ANN, "lily", tags={"x" * 251: "x"})),
        ("value of tag 'x'", lambda: desk.models.create(ANN, "lily", tags={"x": LONG})),
        ("value of tag 'x'", lambda: desk.models.set_tags(ANN, "iris", {"x": LONG})),
        ("tag key", lambda: desk.models.delete_tags(ANN, "iris", ["x" * 251])),
    ]
    for field, use in uses:
        with pytest.raises(InvalidArgument, match=f"^{field}: "):
            await use()
    assert await desk.count() == 1


async def test_of_many_who_make_one_name_one_does(desk: Desk) -> None:
    results = await asyncio.gather(*(desk.models.create(ANN, "iris") for _ in range(20)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists"] * 19 + ["RegisteredModel"]
    assert await desk.count() == 1


async def test_of_many_with_one_request_all_get_the_same(desk: Desk) -> None:
    made = await asyncio.gather(*(desk.models.create(ANN, "iris", request_id="r") for _ in range(20)))
    assert len({model.id for model in made}) == 1
    assert await desk.count() == 1
