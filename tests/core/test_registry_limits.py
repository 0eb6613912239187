"""Nothing is made that is too large to be read again."""

from __future__ import annotations

import pytest
from registering import ANN, BOB, Desk

from penstock_server.core.promotions import Promotions
from penstock_server.model import registry as limits
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.registry import NewVersion, Policy, Stage
from penstock_server.postgres import search_registry
from penstock_server.postgres.database import Database
from penstock_server.rpc import registry_messages as messages

SMALLEST_MESSAGE = 1 << 20
TOKEN = 64 << 10
WIDE = "\U0001f33a"  # four bytes


@pytest.fixture
def desk(db: Database) -> Desk:
    return Desk(db)


def tags(count: int, size: int) -> list[dict[str, str]]:
    """So many, of so many bytes in all, as many calls as they take."""
    each = size // count - 4
    all_tags = {f"{number:04}": "x" * each for number in range(count)}
    keys = list(all_tags)
    return [{key: all_tags[key] for key in keys[start : start + 100]} for start in range(0, count, 100)]


async def test_the_largest_model_fits_into_the_smallest_message(db: Database, desk: Desk) -> None:
    largest = Caller(ANN.principal, ANN.workspace_id, WIDE * 250)
    name = WIDE * limits.NAME_LIMIT
    wide = WIDE * limits.DESCRIPTION_LIMIT
    await desk.models.create(largest, name, wide)
    for some in tags(limits.TAGS_LIMIT, limits.TAGS_BYTES):
        await desk.models.set_tags(largest, name, some)
    for stage in Stage:
        await desk.versions.create(largest, NewVersion(name, source="s3:" + wide[3:], description=wide))
        for some in tags(limits.TAGS_LIMIT, limits.TAGS_BYTES):
            await desk.versions.set_tags(largest, name, stage.value, some)
        await desk.versions.update(largest, name, stage.value, status_message=WIDE * limits.MESSAGE_LIMIT)
        await desk.versions.move_stage(largest, name, stage.value, stage)
    for number in range(limits.ALIASES_LIMIT):
        alias = f"{number:03}".rjust(limits.ALIASES_BYTES // limits.ALIASES_LIMIT, "a")
        await desk.versions.set_alias(largest, name, alias, 1)
    promotions = Promotions(db)
    for number in range(20):
        gates = tuple(f"tags.{letter} = '{'x' * 980}'" for letter in "abc")
        await promotions.set_policy(largest, name, Policy(f"@policy{number}", gates, 1))
    found = await desk.models.get(ANN, name)
    assert sum(len(version.tags) for version in found.latest) == 4 * limits.TAGS_LIMIT
    size = messages.model(found).ByteSize()
    assert size < SMALLEST_MESSAGE - TOKEN
    assert size > 0.8 * SMALLEST_MESSAGE  # nothing is limited without need
    for refused in (
        desk.models.set_tags(ANN, name, {"one more": ""}),
        desk.models.set_tags(ANN, name, {"0000": "x" * 1_000}),
        desk.versions.set_tags(ANN, name, 1, {"one more": ""}),
        desk.versions.set_tags(ANN, name, 1, {"0000": "x" * 1_000}),
        desk.versions.set_alias(ANN, name, "one-more", 1),
        promotions.set_policy(ANN, name, Policy("@one-more", tuple(["tags.a = '" + "x" * 980 + "'"] * 5), 1)),
    ):
        count = await desk.count()
        with pytest.raises(InvalidArgument, match="the limit is"):
            await refused
        assert await desk.count() == count
    await desk.models.set_tags(ANN, name, {"0000": "in its place"})
    await desk.versions.set_tags(ANN, name, 1, {"0000": "in its place"})


async def test_one_value_may_be_as_long_as_mlflows(desk: Desk) -> None:
    made = await desk.version(tags={"notes": "x" * 100_000})
    assert made.tags == {"notes": "x" * 100_000}


async def test_so_many_tags_at_once(desk: Desk) -> None:
    some = {str(number): "" for number in range(limits.TAGS_AT_ONCE + 1)}
    await desk.version()
    for refused in (
        desk.models.create(ANN, "lily", tags=some),
        desk.models.set_tags(ANN, "iris", some),
        desk.models.delete_tags(ANN, "iris", list(some)),
        desk.version(tags=some),
        desk.versions.set_tags(BOB, "iris", 1, some),
        desk.versions.delete_tags(BOB, "iris", 1, list(some)),
    ):
        with pytest.raises(InvalidArgument, match="101 are too many at once; the limit is 100"):
            await refused


async def test_searches_read_long_things_a_few_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_registry, "_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(search_registry, "_SURELY", dict.fromkeys(search_registry._SURELY, 1))
    for number in range(40):
        await desk.version(f"model-{number:02}", tags={"notes": "x" * 100_000})
    seen, token = [], ""
    while not seen or token:
        versions, token = await desk.versions.search(ANN, order_by=["name"], page_token=token)
        assert len(versions) <= 11
        seen += [each.name for each in versions]
    assert seen == [f"model-{number:02}" for number in range(40)]
    seen = []
    while not seen or token:
        models, token = await desk.models.search(ANN, page_token=token)
        assert len(models) <= 11
        seen += [each.name for each in models]
    assert seen == [f"model-{number:02}" for number in range(40)]
