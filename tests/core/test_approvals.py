"""Promotions that others must approve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from promoting import ANN, BOB, CAT, DAN, MODEL, Place, who

from penstock_server.model.errors import (
    FailedPrecondition,
    InvalidArgument,
    InvalidFilter,
    InvalidPageToken,
    NotFound,
    PermissionDenied,
)
from penstock_server.model.promotions import Promotion, PromotionState, Wish
from penstock_server.model.registry import EventKind, Stage
from penstock_server.postgres.database import Database

GOOD = "metrics.f1 >= 0.9"
REQUESTED, APPROVED, REJECTED = (
    EventKind.PROMOTION_REQUESTED, EventKind.PROMOTION_APPROVED, EventKind.PROMOTION_REJECTED,
)  # fmt: skip


@pytest.fixture
def here(db: Database, run: Any) -> Place:
    place = Place(db)
    run(place.registry.create(ANN, MODEL))
    return place


async def state(here: Place, promotion: Promotion) -> PromotionState:
    found, _ = await here.promotions.list(ANN, MODEL)
    return next(each.state for each in found if each.id == promotion.id)


async def test_the_last_approval_promotes(here: Place) -> None:
    version = await here.version(f1=0.95)
    await here.guard("@champion", GOOD, approvals=2)
    wish = Wish(MODEL, version, "@champion", ("params.lr = '0.1'",))
    promotion, results = await here.promotions.request(ANN, wish, "best so far")
    assert (promotion.wish, promotion.state, promotion.requested_by) == (wish, PromotionState.PENDING, "ann")
    assert (promotion.comment, promotion.approvals_needed, promotion.settled_ms) == ("best so far", 2, None)
    assert [(each.gate, each.passed, each.stored) for each in results] == [
        (GOOD, True, True), ("params.lr = '0.1'", True, False),
    ]  # fmt: skip
    first, results = await here.promotions.approve(BOB, MODEL, promotion.id, "looks fine")
    assert (first.state, results) == (PromotionState.PENDING, [])
    # Saying it twice is saying it once.
    again, results = await here.promotions.approve(BOB, MODEL, promotion.id)
    assert (again, results) == (first, [])
    assert await here.aliases() == {}
    last, results = await here.promotions.approve(CAT, MODEL, promotion.id)
    assert last.state is PromotionState.PROMOTED
    assert last.settled_ms is not None
    assert [(each.by, each.approved, each.comment) for each in last.verdicts] == [
        ("bob", True, "looks fine"), ("cat", True, ""),
    ]  # fmt: skip
    assert [each.passed for each in results] == [True, True]
    assert await here.aliases() == {"champion": version}
    number = str(promotion.id)
    *events, moved, promoted = (await here.history())[-5:]
    assert [(what.kind, what.version, what.key, what.after) for what in events] == [
        (REQUESTED, version, "champion", {"promotion_id": number, "comment": "best so far"}),
        (APPROVED, version, "champion", {"promotion_id": number, "comment": "looks fine"}),
        (APPROVED, version, "champion", {"promotion_id": number, "comment": ""}),
    ]
    assert (moved.kind, promoted.kind, promoted.key) == (EventKind.ALIAS_SET, EventKind.PROMOTED, "champion")
    assert promoted.after["promotion_id"] == number


@pytest.mark.parametrize("user", ["ann", "anonymous"])
async def test_nobody_approves_what_they_requested(here: Place, user: str) -> None:
    version = await here.version()
    await here.guard("@champion", approvals=1)
    promotion = await here.request(version, by=who(user))
    with pytest.raises(PermissionDenied, match=f"{user} requested promotion {promotion.id}: somebody else"):
        await here.promotions.approve(who(user), MODEL, promotion.id)
    assert (await here.promotions.approve(BOB, MODEL, promotion.id))[0].state is PromotionState.PROMOTED


async def test_gates_are_evaluated_when_it_is_approved(here: Place) -> None:
    version = await here.version(f1=0.95)
    run_id = (await here.versions.get(ANN, MODEL, version)).run_id
    assert run_id is not None
    await here.guard("@champion", GOOD, approvals=1)
    promotion, results = await here.promotions.request(ANN, Wish(MODEL, version, "@champion"))
    assert results[0].passed
    await here.measure(run_id, f1=0.5)
    approved, results = await here.promotions.approve(BOB, MODEL, promotion.id)
    assert approved.state is PromotionState.PENDING
    assert [each.reason for each in results] == ["metrics.f1 is 0.5, which is not >= 0.9"]
    assert await here.aliases() == {}
    await here.measure(run_id, f1=0.99)
    before = len(await here.history())
    tried_again, _ = await here.promotions.approve(BOB, MODEL, promotion.id)
    assert tried_again.state is PromotionState.PROMOTED
    assert await here.aliases() == {"champion": version}
    assert [what.kind for what in (await here.history())[before:]] == [EventKind.ALIAS_SET, EventKind.PROMOTED]


async def test_gates_of_a_request_refer_to_who_holds_the_alias_then(here: Place) -> None:
    first, second, third = [await here.version(f1=each) for each in (0.5, 0.7, 0.8)]
    await here.promote(first)
    await here.guard("@champion", "metrics.f1 > champion.metrics.f1", approvals=1)
    low, high = await here.request(second), await here.request(third)
    assert (await here.promotions.approve(BOB, MODEL, high.id))[0].state is PromotionState.PROMOTED
    late, [result] = await here.promotions.approve(BOB, MODEL, low.id)
    assert (late.state, result.values[1].value) == (PromotionState.PENDING, "0.8")


async def test_a_stage_is_reached_by_approval_too(here: Place) -> None:
    first, second = await here.version(), await here.version()
    await here.promote(first, "Production")
    await here.guard("Production", approvals=1)
    promotion, _ = await here.promotions.request(ANN, Wish(MODEL, second, "Production", archive_others=True))
    assert (await here.promotions.approve(BOB, MODEL, promotion.id))[0].state is PromotionState.PROMOTED
    assert await here.stages() == {first: Stage.ARCHIVED, second: Stage.PRODUCTION}


@pytest.mark.parametrize("by", [ANN, BOB])
async def test_a_rejection_settles_it(here: Place, by: Any) -> None:
    version = await here.version()
    await here.guard("@champion", approvals=2)
    promotion = await here.request(version)
    await here.promotions.approve(BOB, MODEL, promotion.id)
    rejected = await here.promotions.reject(by, MODEL, promotion.id, "not on Friday")
    assert rejected.state is PromotionState.REJECTED
    verdict = rejected.verdicts[-1]
    assert (verdict.by, verdict.approved, verdict.comment) == (by.user, False, "not on Friday")
    assert len(rejected.verdicts) == (2 if by is ANN else 1)
    for call in (here.promotions.approve, here.promotions.reject):
        with pytest.raises(FailedPrecondition, match="settled: it is rejected"):
            await call(CAT, MODEL, promotion.id)
    assert await here.aliases() == {}
    [what] = await here.history(REJECTED)
    assert what.after == {"promotion_id": str(promotion.id), "comment": "not on Friday"}
    again = await here.request(version)
    assert again.id > promotion.id
    assert again.verdicts == []


async def test_what_is_pending_is_not_requested_twice(here: Place) -> None:
    version, other = await here.version(), await here.version()
    await here.guard("@champion", approvals=1)
    await here.guard("Staging", approvals=1)
    first = await here.request(version, "@champion", "version = 1")
    assert await here.request(version, "@champion", "version = 1") == first
    assert first.wish.gates == ("version = 1",)
    others = [await here.request(other), await here.request(version, "Staging")]
    assert len({first.id, *(each.id for each in others)}) == 3
    assert len(await here.history(REQUESTED)) == 3
    # Neither gates nor people are taken for one another: else who asked might approve, and their gates be forgotten.
    same = Wish(MODEL, version, "@champion", ("version = 1",))
    for by, wish in ((BOB, same), (ANN, replace(same, gates=())), (ANN, replace(same, gates=(GOOD,)))):
        with pytest.raises(FailedPrecondition, match=f"ann has requested @champion .* promotion {first.id} is pending"):
            await here.promotions.request(by, wish)
    with pytest.raises(FailedPrecondition, match="ann has requested Staging for version 1 of 'iris' already"):
        await here.promotions.request(ANN, Wish(MODEL, version, "Staging", archive_others=True))
    assert len(await here.history(REQUESTED)) == 3
    assert (await here.promotions.approve(BOB, MODEL, first.id))[0].state is PromotionState.PROMOTED


async def test_what_needs_no_approval_is_not_requested(here: Place) -> None:
    version = await here.version()
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=r"needs no approvals: use promote\(\)"):
            await here.request(version)
        await here.guard("@champion", GOOD)


async def test_a_deleted_version_makes_it_void(here: Place) -> None:
    version = await here.version()
    await here.guard("@champion", approvals=1)
    promotion = await here.request(version)
    await here.versions.delete(ANN, MODEL, version)
    assert await state(here, promotion) is PromotionState.VOID
    for call in (here.promotions.approve, here.promotions.reject):
        with pytest.raises(FailedPrecondition, match="settled: it is void"):
            await call(BOB, MODEL, promotion.id)


async def test_a_promotion_without_it_makes_it_void(here: Place) -> None:
    version, other = await here.version(), await here.version()
    await here.guard("@champion", approvals=1)
    await here.guard("Staging", approvals=1)
    void, same_target, same_version = [
        await here.request(*asked) for asked in ((version,), (other,), (version, "Staging"))
    ]
    await here.guard("@champion")
    await here.promote(version, dry_run=True)
    assert await state(here, void) is PromotionState.PENDING
    await here.promote(version)
    assert await state(here, void) is PromotionState.VOID
    assert await state(here, same_target) is PromotionState.PENDING
    assert await state(here, same_version) is PromotionState.PENDING


async def test_a_promotion_that_moves_nothing_leaves_what_is_requested(here: Place) -> None:
    version = await here.version()
    await here.promote(version)
    await here.guard("@champion", approvals=1)
    promotion = await here.request(version)
    await here.promotions.delete_policy(ANN, MODEL, "@champion")
    before = await here.history()
    assert (await here.promote(version)).promoted
    assert await here.history() == before
    assert await state(here, promotion) is PromotionState.PENDING


async def test_a_policy_is_that_of_the_moment(here: Place) -> None:
    version = await here.version(f1=0.5)
    await here.guard("@champion", approvals=1)
    promotion = await here.request(version)
    await here.guard("@champion", GOOD, approvals=3)
    for by in (BOB, CAT):
        approved, _ = await here.promotions.approve(by, MODEL, promotion.id)
        assert (approved.state, approved.approvals_needed) == (PromotionState.PENDING, 3)
    await here.guard("@champion", GOOD, approvals=2)
    approved, [result] = await here.promotions.approve(CAT, MODEL, promotion.id)
    assert (approved.state, approved.approvals_needed, result.passed) == (PromotionState.PENDING, 2, False)
    await here.promotions.delete_policy(ANN, MODEL, "@champion")
    approved, results = await here.promotions.approve(DAN, MODEL, promotion.id)
    assert (approved.state, approved.approvals_needed, results) == (PromotionState.PROMOTED, 0, [])
    assert await here.aliases() == {"champion": version}


async def test_who_changes_their_mind_says_so_once_more(here: Place) -> None:
    version = await here.version()
    await here.guard("@champion", approvals=3)
    promotion = await here.request(version)
    for comment in ("fine", "", "fine", "very fine"):
        approved, _ = await here.promotions.approve(BOB, MODEL, promotion.id, comment)
    assert [verdict.comment for verdict in approved.verdicts] == ["very fine"]
    assert [what.after["comment"] for what in await here.history(APPROVED)] == ["fine", "very fine"]


async def test_what_is_unknown_or_of_another_model_is_not_found(here: Place) -> None:
    version = await here.version()
    await here.guard("@champion", approvals=1)
    promotion = await here.request(version)
    await here.registry.create(ANN, "other")
    for name, number in ((MODEL, promotion.id + 1), ("other", promotion.id), (MODEL, -1), (MODEL, 2**63 - 1)):
        for call in (here.promotions.approve, here.promotions.reject):
            with pytest.raises(NotFound, match=f"promotion {number} does not exist"):
                await call(BOB, name, number)
    for wish, error in (
        (Wish(MODEL, 9, "@champion"), NotFound),
        (Wish("unknown", 1, "@champion"), NotFound),
        (Wish(MODEL, 1, "@champion", ("f1 > 1",)), InvalidFilter),
        (Wish(MODEL, 1, "@champion", archive_others=True), InvalidArgument),
    ):
        with pytest.raises(error):
            await here.promotions.request(ANN, wish)
    for text in ("x" * 1001, "\0"):
        for asked in (
            here.promotions.request(ANN, Wish(MODEL, 1, "@champion"), text),
            here.promotions.approve(BOB, MODEL, promotion.id, text),
            here.promotions.reject(BOB, MODEL, promotion.id, text),
        ):
            with pytest.raises(InvalidArgument, match="comment"):
                await asked
    assert await state(here, promotion) is PromotionState.PENDING


async def test_promotions_are_listed_the_newest_first(here: Place) -> None:
    await here.registry.create(ANN, "other")
    await here.guard("@champion", approvals=1)
    made = [await here.request(await here.version()) for _ in range(5)]
    for promotion in made[:2]:
        await here.promotions.approve(BOB, MODEL, promotion.id)
    newest = [each.id for each in reversed(made)]
    for name in ("", MODEL):
        listed: list[int] = []
        token = ""
        while True:
            page, token = await here.promotions.list(ANN, name, page_size=2, page_token=token)
            listed += [each.id for each in page]
            if not token:
                break
            assert len(page) == 2
        assert listed == newest
    done, _ = await here.promotions.list(ANN, MODEL, PromotionState.PROMOTED)
    assert [each.id for each in done] == newest[3:]
    assert [[verdict.by for verdict in each.verdicts] for each in done] == [["bob"], ["bob"]]
    assert await here.promotions.list(ANN, "other") == ([], "")
    with pytest.raises(NotFound):
        await here.promotions.list(ANN, "unknown")
    _, token = await here.promotions.list(ANN, MODEL, page_size=2)
    with pytest.raises(InvalidPageToken):
        await here.promotions.list(ANN, "", page_size=2, page_token=token)
    await here.registry.delete(ANN, MODEL)
    assert await here.promotions.list(ANN) == ([], "")
