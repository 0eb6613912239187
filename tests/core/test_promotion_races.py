"""Many who promote at once: one of them wins, nothing happens twice, and the history leads to what is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from promoting import ANN, BOB, MODEL, Place, all_at_once, who

from penstock_server.model.errors import AliasMoved, FailedPrecondition, Guarded, NotFound
from penstock_server.model.promotions import Outcome, PromotionState
from penstock_server.model.registry import EventKind, Stage
from penstock_server.postgres.database import Database

TASKS = 50
BETTER = "metrics.f1 > champion.metrics.f1"


@pytest.fixture
def here(db: Database, run: Any) -> Place:
    place = Place(db)
    run(place.registry.create(ANN, MODEL))
    return place


async def bare_versions(here: Place, count: int) -> list[int]:
    return [await here.without_run() for _ in range(count)]


async def test_of_those_that_expect_the_same_one_wins(here: Place) -> None:
    held, *versions = await bare_versions(here, 1 + TASKS)
    await here.promote(held)
    told = await all_at_once([here.promote(each, expected=held, by=who(f"user{each}")) for each in versions])
    [won] = [each for each in told if isinstance(each, Outcome)]
    assert (won.promoted, won.previous) == (True, held)
    lost = [each for each in told if isinstance(each, AliasMoved)]
    assert len(lost) == TASKS - 1
    winner = won.version.version
    assert {(each.version, each.moved_by) for each in lost} == {(winner, f"user{winner}")}
    assert await here.aliases() == {"champion": winner}
    assert len(await here.history(EventKind.PROMOTED)) == 2
    assert await here.replayed() == (await here.aliases(), await here.stages())


async def test_each_is_compared_with_the_one_that_it_replaces(here: Place) -> None:
    scores = [number / TASKS for number in range(TASKS)]
    random.Random(7).shuffle(scores)
    by_version = {await here.version(f1=score): score for score in scores}
    told = await all_at_once([here.promote(each, "@champion", BETTER) for each in by_version])
    assert all(isinstance(each, Outcome) for each in told)
    winners = [what.version for what in await here.history(EventKind.ALIAS_SET)]
    assert [by_version[each] for each in winners] == sorted(by_version[each] for each in winners)
    assert await here.aliases() == {"champion": max(by_version, key=by_version.__getitem__)}
    assert sorted(winners) == sorted(each.version.version for each in told if each.promoted)
    assert await here.replayed() == (await here.aliases(), await here.stages())


async def test_one_is_in_the_stage_when_each_archives_the_others(here: Place) -> None:
    versions = await bare_versions(here, TASKS)
    told = await all_at_once([here.promote(each, "Production", archive_others=True) for each in versions])
    assert all(each.promoted for each in told)
    stages = list((await here.stages()).values())
    assert stages.count(Stage.PRODUCTION) == 1
    assert stages.count(Stage.ARCHIVED) == TASKS - 1
    assert await here.replayed() == (await here.aliases(), await here.stages())


async def test_approvals_at_once_promote_once(here: Place) -> None:
    [version] = await bare_versions(here, 1)
    await here.guard("@champion", approvals=3)
    promotion = await here.request(version)
    told = await all_at_once(
        [here.promotions.approve(who(f"user{number}"), MODEL, promotion.id) for number in range(TASKS)]
    )
    answers = [each[0].state for each in told if isinstance(each, tuple)]
    assert sorted(answers) == [PromotionState.PENDING, PromotionState.PENDING, PromotionState.PROMOTED]
    refused = [each for each in told if isinstance(each, FailedPrecondition)]
    assert len(refused) == TASKS - 3
    kinds = [EventKind.PROMOTION_APPROVED, EventKind.ALIAS_SET, EventKind.PROMOTED]
    assert [what.kind for what in await here.history(*kinds)] == [kinds[0], kinds[0], *kinds]
    [listed], _ = await here.promotions.list(ANN)
    assert (listed.state, len(listed.verdicts)) == (PromotionState.PROMOTED, 3)


async def test_approvals_and_rejections_at_once_end_one_way(here: Place) -> None:
    for number in range(10):
        [version] = await bare_versions(here, 1)
        await here.guard("@champion", approvals=1)
        promotion = await here.request(version)
        calls = [
            here.promotions.approve(BOB, MODEL, promotion.id),
            here.promotions.reject(ANN, MODEL, promotion.id),
            here.versions.delete(ANN, MODEL, version),
        ]
        random.Random(number).shuffle(calls)
        await all_at_once(calls)
        [listed, *_], _ = await here.promotions.list(ANN)
        assert listed.state in (PromotionState.PROMOTED, PromotionState.REJECTED, PromotionState.VOID)
        promoted = [what.version for what in await here.history(EventKind.PROMOTED)]
        assert (version in promoted) is (listed.state is PromotionState.PROMOTED)
        assert await here.aliases() == {}  # the version is deleted in the end
        assert await here.replayed() == ({}, {})


async def test_the_same_requested_at_once_is_requested_once(here: Place) -> None:
    [version] = await bare_versions(here, 1)
    await here.guard("@champion", approvals=1)
    told = await all_at_once([here.request(version) for _ in range(TASKS)])
    assert len({each.id for each in told}) == 1
    told = await all_at_once([here.request(version, by=who(f"user{number}")) for number in range(TASKS)])
    assert {type(each) for each in told} == {FailedPrecondition}
    assert len(await here.history(EventKind.PROMOTION_REQUESTED)) == 1


async def test_nothing_gets_past_a_policy_that_comes_meanwhile(here: Place) -> None:
    """What was moved was moved before the policy came, or by its gates."""
    for number in range(10):
        target = f"@alias-{number}"
        good, bad = await here.version(f1=1.0), await here.version(f1=0.0)
        calls = [
            here.guard(target, "metrics.f1 > 0.5"),
            *(here.promote(bad, target) for _ in range(3)),
            here.versions.set_alias(ANN, MODEL, target[1:], bad),
            here.promote(good, target),
        ]
        random.Random(number).shuffle(calls)
        told = await all_at_once(calls)
        assert not [each for each in told if isinstance(each, Exception) and not isinstance(each, Guarded)]
        events = [what for what in await here.history() if what.key == target[1:]]
        [guarded] = [place for place, what in enumerate(events) if what.kind is EventKind.POLICY_SET]
        moved = [what.version for what in events[guarded:] if what.kind is EventKind.ALIAS_SET]
        assert set(moved) <= {good}
    assert (await here.replayed())[0] == await here.aliases()


async def test_a_version_that_is_deleted_meanwhile_is_promoted_before_or_not_at_all(here: Place) -> None:
    for number in range(10):
        [version] = await bare_versions(here, 1)
        calls = [here.versions.delete(ANN, MODEL, version), *(here.promote(version) for _ in range(4))]
        random.Random(number).shuffle(calls)
        told = await all_at_once(calls)
        assert all(each is None or isinstance(each, Outcome | NotFound) for each in told)
        assert await here.aliases() == {}
    assert await here.replayed() == ({}, {})
