"""Promotion by gates: what moves, what does not, and what it is compared with."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from promoting import ANN, BOB, MODEL, Place

from penstock_server.model.errors import (
    AliasMoved,
    FailedPrecondition,
    Guarded,
    InvalidArgument,
    InvalidFilter,
    NotFound,
)
from penstock_server.model.gates import GateValue
from penstock_server.model.promotions import PromotionState, Wish
from penstock_server.model.registry import EventKind, Happening, NewVersion, Policy, Stage, VersionStatus
from penstock_server.postgres.database import Database

GOOD = "metrics.f1 >= 0.9"
BETTER = "metrics.f1 >= champion.metrics.f1"


@pytest.fixture
def here(db: Database, run: Any) -> Place:
    place = Place(db)
    run(place.registry.create(ANN, MODEL))
    return place


async def test_a_version_whose_gates_pass_is_promoted(here: Place) -> None:
    first, second = await here.version(f1=0.91), await here.version(f1=0.92, tags={"validated": "yes"})
    await here.promote(first)
    begun = len(await here.history())
    outcome = await here.promote(second, "@champion", GOOD, BETTER, "tags.validated = 'yes'", by=BOB)
    assert outcome.promoted
    assert outcome.previous == first
    assert outcome.version.aliases == ["champion"]
    assert [(each.gate, each.passed, each.reason, each.stored) for each in outcome.gates] == [
        (GOOD, True, "", False), (BETTER, True, "", False), ("tags.validated = 'yes'", True, "", False),
    ]  # fmt: skip
    assert outcome.gates[1].values == (
        GateValue("metrics.f1", "0.92", second), GateValue("champion.metrics.f1", "0.91", first),
    )  # fmt: skip
    assert await here.aliases() == {"champion": second}
    moved, promoted = (await here.history())[begun:]
    assert (moved.kind, moved.version, moved.key) == (EventKind.ALIAS_SET, second, "champion")
    assert (promoted.kind, promoted.version, promoted.key) == (EventKind.PROMOTED, second, "champion")
    told = json.loads(promoted.after["gates"])
    assert told[1] == {
        "gate": BETTER, "passed": True, "reason": "", "stored": False,
        "values": [
            {"field": "metrics.f1", "value": "0.92", "version": second},
            {"field": "champion.metrics.f1", "value": "0.91", "version": first},
        ],
    }  # fmt: skip


async def test_a_gate_that_fails_is_an_answer_and_changes_nothing(here: Place) -> None:
    first, second = await here.version(f1=0.91), await here.version(f1=math.nan)
    await here.promote(first)
    before, model = await here.history(), await here.registry.get(ANN, MODEL)
    outcome = await here.promote(second, "@champion", GOOD, "metrics.acc > 0", "metrics.f1 != 1")
    assert not outcome.promoted
    assert (outcome.previous, outcome.version.aliases) == (first, [])
    assert [(each.passed, each.reason) for each in outcome.gates] == [
        (False, "metrics.f1 is NaN, which is not >= 0.9"),
        (False, "version 2 has no metrics.acc"),
        (True, ""),
    ]
    assert await here.history() == before
    assert await here.registry.get(ANN, MODEL) == model


async def test_a_dry_run_only_looks(here: Place) -> None:
    version = await here.version(f1=0.95)
    before = await here.history()
    assert (await here.promote(version, "@champion", GOOD, dry_run=True)).promoted
    assert not (await here.promote(version, "@champion", "metrics.f1 > 1", dry_run=True)).promoted
    assert await here.aliases() == {}
    assert await here.history() == before


async def test_a_promotion_says_where_the_alias_must_be(here: Place) -> None:
    first, second = await here.version(f1=1), await here.version(f1=1)
    await here.promote(first, expected=0)
    for expected, options in ((0, {}), (second, {}), (0, {"dry_run": True})):
        # That is told before anything about gates is.
        with pytest.raises(AliasMoved) as caught:
            await here.promote(second, "@champion", "metrics.f1 > 1", expected=expected, **options)
        assert (caught.value.version, caught.value.moved_by) == (first, "ann")
    assert await here.aliases() == {"champion": first}
    assert (await here.promote(second, expected=first)).previous == first
    assert await here.aliases() == {"champion": second}


async def test_what_is_there_already_is_promoted_without_an_event(here: Place) -> None:
    version = await here.version()
    await here.promote(version)
    await here.promote(version, "Staging")
    before = await here.history()
    outcome = await here.promote(version)
    assert (outcome.promoted, outcome.previous) == (True, version)
    assert (await here.promote(version, "Staging")).promoted
    assert await here.history() == before


async def test_a_version_is_promoted_to_a_stage_and_the_others_are_archived(here: Place) -> None:
    versions = [await here.version(f1=each / 10) for each in range(4)]
    for version in versions[:2]:
        await here.promote(version, "Production")
    assert list((await here.stages()).values()).count(Stage.PRODUCTION) == 2
    begun = len(await here.history())
    outcome = await here.promote(versions[2], "Production", "metrics.f1 > Production.metrics.f1", archive_others=True)
    assert outcome.promoted
    assert outcome.version.stage is Stage.PRODUCTION
    assert outcome.previous == 0
    assert outcome.gates[0].values[1] == GateValue("Production.metrics.f1", "0.1", versions[1])
    assert await here.stages() == {1: Stage.ARCHIVED, 2: Stage.ARCHIVED, 3: Stage.PRODUCTION, 4: Stage.NONE}
    assert [(what.kind, what.version, what.key) for what in (await here.history())[begun:]] == [
        (EventKind.STAGE_CHANGED, 1, "archived"),
        (EventKind.STAGE_CHANGED, 2, "archived"),
        (EventKind.STAGE_CHANGED, 3, "promoted"),
        (EventKind.PROMOTED, 3, "Production"),
    ]
    assert await here.replayed() == (await here.aliases(), await here.stages())


@pytest.mark.parametrize(
    ("wish", "options", "error", "message"),
    [
        (Wish("unknown", 1, "@champion"), {}, NotFound, "registered model 'unknown'"),
        (Wish(MODEL, 9, "@champion"), {}, NotFound, "model version 'iris/9'"),
        (Wish("a/b", 1, "@champion"), {}, InvalidArgument, "name: "),
        (Wish(MODEL, 0, "@champion"), {}, InvalidArgument, "version: 0"),
        (Wish(MODEL, 1, "@champion", ("metrics.f1 >",)), {}, InvalidFilter, r"gates\[0\]: at position 12"),
        (Wish(MODEL, 1, "@champion", (GOOD, "f1 > 1")), {}, InvalidFilter, r"gates\[1\]: at position 0"),
        (Wish(MODEL, 1, "@champion", (GOOD, "x" * 1001)), {}, InvalidArgument, r"gates\[1\]: is 1001 characters"),
        (Wish(MODEL, 1, "@champion", (GOOD, "\0")), {}, InvalidArgument, r"gates\[1\]: .*NUL"),
        (Wish(MODEL, 1, "@champion", (GOOD,) * 51), {}, InvalidArgument, "gates: 51 are too many"),
        (Wish(MODEL, 1, "@champion", archive_others=True), {}, InvalidArgument, "archive_others: "),
        (Wish(MODEL, 1, "Archived", archive_others=True), {}, InvalidArgument, "archive_others: "),
        (Wish(MODEL, 1, "Staging"), {"expected": 0}, InvalidArgument, "expected: "),
        (Wish(MODEL, 1, "@champion"), {"expected": -1}, InvalidArgument, "expected: "),
    ],
)
async def test_a_bad_promotion_is_refused(
    here: Place, wish: Wish, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    await here.version()
    before = await here.history()
    with pytest.raises(error, match=message):
        await here.promotions.promote(ANN, wish, **options)
    assert await here.history() == before


async def test_a_policy_guards_an_alias_and_a_stage(here: Place) -> None:
    good, bad = await here.version(f1=0.95), await here.version(f1=0.5)
    await here.guard("@champion", GOOD)
    await here.guard("Production", GOOD)
    for version in (good, bad):
        with pytest.raises(Guarded):
            await here.versions.set_alias(ANN, MODEL, "champion", version)
        with pytest.raises(Guarded):
            await here.versions.move_stage(ANN, MODEL, version, Stage.PRODUCTION)
    for target in ("@champion", "Production"):
        outcome = await here.promote(bad, target, "metrics.f1 > 0")
        assert [(each.gate, each.passed, each.stored) for each in outcome.gates] == [
            (GOOD, False, True), ("metrics.f1 > 0", True, False),
        ]  # fmt: skip
        assert (await here.promote(good, target)).promoted
    # Others are free, and so is the way out.
    await here.versions.set_alias(ANN, MODEL, "challenger", bad)
    await here.versions.move_stage(ANN, MODEL, good, Stage.ARCHIVED)
    await here.versions.delete_alias(ANN, MODEL, "champion")
    await here.promotions.delete_policy(ANN, MODEL, "@champion")
    await here.versions.set_alias(ANN, MODEL, "champion", bad)


async def test_a_policy_is_replaced_and_each_change_is_an_event(here: Place) -> None:
    await here.guard("@champion", GOOD)
    await here.guard("@champion", GOOD)
    await here.guard("@champion", GOOD, BETTER, approvals=2)
    await here.guard("Staging")
    model = await here.registry.get(ANN, MODEL)
    assert model.policies == [Policy("@champion", (GOOD, BETTER), 2), Policy("Staging", (), 0)]
    for target in ("@champion", "Staging"):
        await here.promotions.delete_policy(ANN, MODEL, target)
        with pytest.raises(NotFound, match="promotion policy"):
            await here.promotions.delete_policy(ANN, MODEL, target)
    one = {"gates": json.dumps([GOOD]), "approvals": "0"}
    two = {"gates": json.dumps([GOOD, BETTER]), "approvals": "2"}
    none = {"gates": "[]", "approvals": "0"}
    assert await here.history(EventKind.POLICY_SET, EventKind.POLICY_DELETED) == [
        Happening(EventKind.POLICY_SET, 0, "champion", {}, one),
        Happening(EventKind.POLICY_SET, 0, "champion", one, two),
        Happening(EventKind.POLICY_SET, 0, "Staging", {}, none),
        Happening(EventKind.POLICY_DELETED, 0, "champion", two, {}),
        Happening(EventKind.POLICY_DELETED, 0, "Staging", none, {}),
    ]


@pytest.mark.parametrize(
    ("policy", "error", "message"),
    [
        (Policy("@champion", (GOOD, "f1 >"), 0), InvalidFilter, r"gates\[1\]: at position 0"),
        (Policy("@champion", (GOOD,) * 51, 0), InvalidArgument, "gates: 51"),
        (Policy("@champion", (), -1), InvalidArgument, "approvals: -1 is not within 0 to 20"),
        (Policy("@champion", (), 21), InvalidArgument, "approvals: 21"),
        (Policy("@champion", ("metrics.f1 > 1".ljust(1000),) * 21, 0), InvalidArgument, "gates: have 21,000"),
        (Policy("Archived", (GOOD,), 0), InvalidArgument, "target: Archived cannot be guarded: Staging and Production"),
        (Policy("None", (), 1), InvalidArgument, "target: None cannot be guarded"),
    ],
)
async def test_a_bad_policy_is_refused(here: Place, policy: Policy, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await here.promotions.set_policy(ANN, MODEL, policy)
    with pytest.raises(NotFound):
        await here.promotions.set_policy(ANN, "unknown", Policy("@champion", (), 0))
    assert (await here.registry.get(ANN, MODEL)).policies == []


@pytest.mark.parametrize("target", ["@champion", "Production"])
async def test_only_the_first_of_a_target_is_compared_with_nothing(here: Place, target: str) -> None:
    version, name = await here.version(f1=0.1), target.removeprefix("@")
    other = {"champion": "Production", "Production": "champion"}[name]
    first, typo = f"metrics.f1 >= {name}.metrics.f1", f"metrics.f1 >= {other}.metrics.f1"
    [result] = (await here.promote(version, target, first, dry_run=True)).gates
    assert (result.passed, result.reason) == (True, f"no version of iris was ever {name}")
    outcome = await here.promote(version, target, first, typo)
    assert (outcome.promoted, [each.passed for each in outcome.gates]) == (False, [True, False])
    assert outcome.gates[1].reason == f"no version of iris was ever {other}"
    assert (await here.promote(version, target, first)).promoted
    # So it is in policies, and where others approve.
    await here.guard(target, first, typo, approvals=1)
    asked, results = await here.promotions.request(ANN, Wish(MODEL, version, target))
    assert [each.passed for each in results] == [True, False]
    _, results = await here.promotions.approve(BOB, MODEL, asked.id)
    assert [each.reason for each in results] == ["", f"no version of iris was ever {other}"]


async def test_an_alias_of_another_model_is_none_of_this_one(here: Place) -> None:
    version = await here.version(f1=0.1)
    await here.registry.create(ANN, "other")
    await here.execute(
        "INSERT INTO registry_events (workspace_id, model_id, kind, name, version, key, before, after, made_by, at_ms,"
        " request_id) SELECT 1, id, 13, name, 1, 'champion', '{}', '{}', '', 0, '' FROM registered_models"
        " WHERE name = 'other'"
    )
    assert (await here.promote(version, "@champion", BETTER, dry_run=True)).promoted


async def vacate(here: Place, target: str, version: int, way: str) -> None:
    if way == "left":
        if target.startswith("@"):
            await here.versions.delete_alias(ANN, MODEL, target[1:])
        else:
            await here.versions.move_stage(ANN, MODEL, version, Stage.NONE)
    else:
        await here.versions.delete(ANN, MODEL, version)


@pytest.mark.parametrize("way", ["left", "deleted"])
@pytest.mark.parametrize("target", ["@champion", "Production"])
async def test_nobody_gets_round_a_gate_by_vacating_what_it_refers_to(here: Place, target: str, way: str) -> None:
    name = target.removeprefix("@")
    gate = f"metrics.f1 >= {name}.metrics.f1"
    old, best, weak, strong = [await here.version(f1=each) for each in (0.7, 0.9, 0.8, 0.95)]
    await here.guard(target, gate)
    assert (await here.promote(old, target)).promoted
    assert (await here.promote(best, target, archive_others=target == "Production")).promoted
    assert not (await here.promote(weak, target)).promoted
    await vacate(here, target, best, way)
    outcome = await here.promote(weak, target)
    assert not outcome.promoted
    [result] = outcome.gates
    assert result.values == (
        GateValue("metrics.f1", "0.8", weak), GateValue(f"{name}.metrics.f1", "0.9", best),
    )  # fmt: skip
    assert result.reason.endswith(f"0.9 of version 2 (once {name})")
    assert (await here.promote(strong, target)).promoted


async def test_a_gate_fails_where_what_it_refers_to_has_no_run_any_more(here: Place) -> None:
    bare = await here.without_run()
    strong = await here.version(f1=1.0)
    await here.promote(bare)
    [result] = (await here.promote(strong, "@champion", BETTER)).gates
    assert (result.passed, result.reason) == (
        False, "version 1 (champion) comes from no run, which champion.metrics.f1 would be of",
    )  # fmt: skip
    weak = await here.version(f1=0.2)
    await here.promote(weak)
    run_id = (await here.versions.get(ANN, MODEL, weak)).run_id
    await here.execute("DELETE FROM run_metrics WHERE run_id = $1", run_id)
    [result] = (await here.promote(strong, "@champion", BETTER)).gates
    assert (result.passed, result.reason) == (False, "version 3 (champion) has no metrics.f1")
    for table in ("run_params", "run_tags"):
        await here.execute(f"DELETE FROM {table} WHERE run_id = $1", run_id)
    await here.execute("DELETE FROM runs WHERE id = $1", run_id)
    for gate in (BETTER, "NOT metrics.f1 < champion.metrics.f1"):
        [result] = (await here.promote(strong, "@champion", gate)).gates
        assert (result.passed, result.reason) == (
            False, "version 3 (champion) comes from a run that was removed, which champion.metrics.f1 would be of",
        )  # fmt: skip


async def test_a_version_without_a_run_has_its_tags_only(here: Place) -> None:
    version = await here.without_run()
    await here.versions.set_tags(ANN, MODEL, version, {"validated": "yes"})
    gates = ("metrics.f1 > 0", "params.lr = '0.1'", "status = 'RUNNING'", "tags.validated = 'yes'", "version = 1")
    outcome = await here.promote(version, "@champion", *gates, "stage = 'None'")
    assert [each.passed for each in outcome.gates] == [False, False, False, True, True, True]
    assert outcome.gates[0].reason == "version 1 comes from no run, which metrics.f1 would be of"
    assert outcome.gates[0].values == (GateValue("metrics.f1", None, version),)


async def test_tags_of_the_version_go_before_those_of_its_run(here: Place) -> None:
    version = await here.version()
    run_id = (await here.versions.get(ANN, MODEL, version)).run_id
    assert run_id is not None
    await here.runs.set_tags(ANN, run_id, {"a": "run", "b": "run"})
    await here.versions.set_tags(ANN, MODEL, version, {"a": "version"})
    gates = ("tags.a = 'version'", "tags.b = 'run'", "params.lr = '0.1'", f"run_id = '{run_id}'", "status = 'running'")
    assert (await here.promote(version, "@champion", *gates)).promoted


async def test_what_another_workspace_has_is_not_seen(here: Place) -> None:
    version = await here.version(f1=1.0)
    run_id = (await here.versions.get(ANN, MODEL, version)).run_id
    await here.execute("INSERT INTO workspaces (id, name) OVERRIDING SYSTEM VALUE VALUES (2, 'other')")
    await here.execute("UPDATE run_metrics SET workspace_id = 2 WHERE run_id = $1", run_id)
    assert not (await here.promote(version, "@champion", GOOD)).promoted


async def test_what_is_not_ready_is_not_promoted(here: Place) -> None:
    versions = [await here.version(f1=1.0), (await here.versions.create(ANN, NewVersion(
        MODEL, run_id=await here.run(f1=1.0), status=VersionStatus.PENDING))).version]  # fmt: skip
    await here.guard("Production", approvals=1)
    asked = await here.request(versions[0], "Production")
    await here.versions.update(ANN, MODEL, versions[0], status=VersionStatus.FAILED)
    problems = ("has failed: its bytes will not come", "is pending: its bytes are not there yet")
    before = await here.history()
    for version, problem in zip(versions, problems, strict=True):
        for call in (
            here.promote(version),
            here.promote(version, dry_run=True),
            here.promotions.request(ANN, Wish(MODEL, version, "Production")),
        ):
            with pytest.raises(FailedPrecondition, match=f"^iris version {version} {problem}$"):
                await call
    with pytest.raises(FailedPrecondition, match=r"^iris version 1 has failed"):
        await here.promotions.approve(BOB, MODEL, asked.id)
    assert await here.history() == before
    await here.versions.update(ANN, MODEL, versions[0], status=VersionStatus.READY)
    assert (await here.promote(versions[0])).promoted
    promotion, _ = await here.promotions.approve(BOB, MODEL, asked.id)
    assert promotion.state is PromotionState.PROMOTED


async def test_what_needs_approvals_is_not_promoted_without(here: Place) -> None:
    version = await here.version(f1=1.0)
    await here.guard("@champion", GOOD, approvals=1)
    before = await here.history()
    with pytest.raises(Guarded, match=r"@champion of 'iris' is guarded by 1 approval: request_promotion\(\) gets"):
        await here.promote(version)
    with pytest.raises(Guarded, match=r"guarded by 1 approval: request_promotion\(\)"):
        await here.versions.set_alias(ANN, MODEL, "champion", version)
    # Looking is free.
    outcome = await here.promote(version, "@champion", "metrics.f1 > 1", dry_run=True)
    assert [(each.passed, each.stored) for each in outcome.gates] == [(True, True), (False, False)]
    assert (await here.aliases(), await here.history()) == ({}, before)


async def test_the_worst_gates_are_soon_done_with(here: Place) -> None:
    """A request's and a policy's, over a tag as long as may be, keep neither the loop nor others waiting."""
    new = NewVersion(MODEL, source="s3://bucket/model", tags={"t": "a" * 100_000})
    version = (await here.versions.create(ANN, new)).version
    gates = [f"NOT tags.t ILIKE '%{'_a' * 480}b%'"] * 20
    await here.guard("@champion", *gates)
    outcome = await here.promote(version, "@champion", *gates)
    assert not outcome.promoted
    assert {each.reason for each in outcome.gates} == {
        "tags.t has 100,000 characters, which is more than LIKE may still look at in the gates of one promotion"
    }
    # Enough for one is not enough for all.
    outcome = await here.promote(version, "Staging", *["NOT tags.t ILIKE '%_b%'"] * 20)
    assert [each.passed for each in outcome.gates] == [True] + [False] * 19


async def test_gates_that_this_release_does_not_read_are_told_to_be_the_policys(here: Place) -> None:
    version = await here.version(f1=1.0)
    await here.guard("@champion", GOOD)
    await here.execute("UPDATE promotion_policies SET gates = '{metrics.f1 ~ 1}'")
    with pytest.raises(FailedPrecondition, match=r"the policy of @champion of 'iris' must be set again: gates\[0\]"):
        await here.promote(version)
