"""The registry as its history tells it, made of the events alone, and as get and search answer it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from registering import ANN, Desk

from penstock_server.core.promotions import Promotions
from penstock_server.model.logged_models import format_model_id
from penstock_server.model.promotions import PromotionState
from penstock_server.model.registry import Event, EventKind, Ref, Stage
from penstock_server.model.runs import format_run_id

_MOST = 50_000
_STAGES = frozenset(stage.label for stage in Stage)


@dataclass
class Version:
    source: str
    run_id: str
    path: str
    status: str
    description: str
    created_by: str
    status_message: str = ""
    given_source: str = ""
    logged_model_id: str = ""
    stage: str = "None"
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Promotion:
    version: int
    target: str
    requested_by: str
    comment: str
    state: PromotionState = PromotionState.PENDING
    verdicts: dict[str, tuple[bool, str]] = field(default_factory=dict)


@dataclass
class Model:
    description: str
    created_by: str
    last_version: int = 0
    tags: dict[str, str] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    policies: dict[str, tuple[list[str], int]] = field(default_factory=dict)
    promotions: dict[int, Promotion] = field(default_factory=dict)


def replay(events: Iterable[Event], models: dict[str, Model] | None = None) -> dict[str, Model]:
    """What events lead to, from these models on. Fails where one does not follow from those before it."""
    models = {} if models is None else models
    last = 0
    for event in events:
        assert event.id > last
        last = event.id
        try:
            _apply(event, models)
        except (AssertionError, KeyError) as error:
            raise AssertionError(f"{event} does not follow: {error!r}") from error
    return models


def _apply(event: Event, models: dict[str, Model]) -> None:
    what, name = event.what, event.name
    before, after = dict(what.before), dict(what.after)
    if what.kind is EventKind.MODEL_CREATED:
        assert name not in models
        assert after.pop("name") == name
        models[name] = Model(created_by=event.by, **after)
        assert before == {}
        return
    model = models[name]
    match what.kind:
        case EventKind.MODEL_RENAMED:
            assert before == {"name": name}
            assert after["name"] not in models
            models[after["name"]] = models.pop(name)
        case EventKind.MODEL_UPDATED:
            _change(model, before, after)
        case EventKind.MODEL_DELETED:
            assert (model.versions, model.aliases) == ({}, {})
            assert before == {"name": name}
            del models[name]
        case EventKind.MODEL_TAG_SET | EventKind.MODEL_TAG_DELETED:
            _tag(model.tags, what.key, before, after)
        case EventKind.VERSION_CREATED:
            assert what.version == model.last_version + 1
            model.last_version += 1
            model.versions[what.version] = Version(created_by=event.by, **after)
        case EventKind.VERSION_UPDATED:
            _change(model.versions[what.version], before, after)
        case EventKind.VERSION_DELETED:
            assert what.version not in model.aliases.values()
            _compare(model.versions.pop(what.version), before)
            _settle(model, what.version)
        case EventKind.VERSION_TAG_SET | EventKind.VERSION_TAG_DELETED:
            _tag(model.versions[what.version].tags, what.key, before, after)
        case EventKind.STAGE_CHANGED:
            _change(model.versions[what.version], before, after)
        case EventKind.ALIAS_SET | EventKind.ALIAS_DELETED:
            assert before == _named(model, model.aliases.pop(what.key, 0))
            if after:
                model.aliases[what.key] = what.version
                assert after == _named(model, what.version)
        case EventKind.POLICY_SET | EventKind.POLICY_DELETED:
            assert before == _written(model.policies.pop(_target(what.key), None))
            if after:
                model.policies[_target(what.key)] = json.loads(after["gates"]), int(after["approvals"])
        case EventKind.SOURCE_DELETED:
            assert model.versions[what.version].run_id == before["run_id"]
        case _:
            _promote(event, model)


def _promote(event: Event, model: Model) -> None:
    what, target, after = event.what, _target(event.what.key), dict(event.what.after)
    number = int(after.pop("promotion_id", 0))
    if what.kind is EventKind.PROMOTION_REQUESTED:
        assert number not in model.promotions
        assert what.version in model.versions
        model.promotions[number] = Promotion(what.version, target, event.by, after["comment"])
        return
    promotion = model.promotions[number] if number else None
    if promotion:
        asked = promotion.state, promotion.version, promotion.target
        assert asked == (PromotionState.PENDING, what.version, target)
    match what.kind:
        case EventKind.PROMOTED:
            assert all(gate["passed"] for gate in json.loads(after["gates"]))
            assert model.versions[what.version].status == "ready"
            if what.key in _STAGES:
                assert model.versions[what.version].stage == what.key
            else:
                assert model.aliases[what.key] == what.version
            if promotion:
                promotion.state = PromotionState.PROMOTED
            _settle(model, what.version, target)
        case EventKind.PROMOTION_APPROVED | EventKind.PROMOTION_REJECTED:
            assert promotion
            promotion.verdicts[event.by] = what.kind is EventKind.PROMOTION_APPROVED, after["comment"]
            if what.kind is EventKind.PROMOTION_REJECTED:
                promotion.state = PromotionState.REJECTED
        case _:
            raise AssertionError(f"{what.kind!r} is unknown")


def _settle(model: Model, version: int, target: str = "") -> None:
    """What is pending for a version, and for a target if told, becomes void."""
    for each in model.promotions.values():
        if each.state is PromotionState.PENDING and each.version == version and target in ("", each.target):
            each.state = PromotionState.VOID


def _compare(thing: Model | Version, fields: dict[str, str]) -> None:
    assert {name: getattr(thing, name) for name in fields} == fields


def _change(thing: Model | Version, before: dict[str, str], after: dict[str, str]) -> None:
    _compare(thing, before)
    assert before.keys() == after.keys()
    assert all(before[name] != value for name, value in after.items())
    for name, value in after.items():
        setattr(thing, name, value)


def _tag(tags: dict[str, str], key: str, before: dict[str, str], after: dict[str, str]) -> None:
    assert before == ({"value": tags.pop(key)} if key in tags else {})
    assert before != after
    if after:
        tags[key] = after["value"]


def _named(model: Model, version: int) -> dict[str, str]:
    return {"version": str(version), "run_id": model.versions[version].run_id} if version else {}


def _written(policy: tuple[list[str], int] | None) -> dict[str, str]:
    return {"gates": json.dumps(policy[0], ensure_ascii=False), "approvals": str(policy[1])} if policy else {}


def _target(key: str) -> str:
    return key if key in _STAGES else f"@{key}"


async def answered(desk: Desk) -> dict[str, Model]:
    """What the registry answers. Fails where two of its answers are at odds; nobody may write meanwhile."""
    found, token = await desk.models.search(ANN, page_size=_MOST)
    versions, other = await desk.versions.search(ANN, page_size=_MOST)
    asked, third = await Promotions(desk.db).list(ANN, page_size=_MOST)
    assert token == other == third == ""
    models = {
        each.name: Model(
            each.description,
            each.created_by,
            each.last_version,
            each.tags,
            aliases=each.aliases,
            policies={policy.target: (list(policy.gates), policy.approvals) for policy in each.policies},
        )
        for each in found
    }
    for version in sorted(versions, key=lambda each: each.version):
        model = models[version.name]
        assert version.aliases == sorted(alias for alias, named in model.aliases.items() if named == version.version)
        model.versions[version.version] = Version(
            version.source,
            format_run_id(version.run_id) if version.run_id else "",
            version.path,
            version.status.label,
            version.description,
            version.created_by,
            version.status_message,
            version.given_source,
            format_model_id(version.logged_model_id) if version.logged_model_id else "",
            version.stage.label,
            version.tags,
        )
    for each in found:
        newest = {version.stage: version for version in sorted(versions, key=lambda version: version.version)
                  if version.name == each.name}  # fmt: skip
        assert each.latest == [newest[stage] for stage in sorted(newest)]
        assert set(each.aliases.values()) <= models[each.name].versions.keys()
    for wish in asked:
        models[wish.wish.name].promotions[wish.id] = Promotion(
            wish.wish.version,
            wish.wish.target,
            wish.requested_by,
            wish.comment,
            wish.state,
            {verdict.by: (verdict.approved, verdict.comment) for verdict in wish.verdicts},
        )
    return models


async def answered_one_by_one(desk: Desk) -> None:
    """Fails where get, resolve and latest do not answer what search does."""
    found, _ = await desk.models.search(ANN, page_size=_MOST)
    versions, _ = await desk.versions.search(ANN, page_size=_MOST)
    for model in found:
        assert await desk.models.get(ANN, model.name) == model
        assert await desk.versions.latest(ANN, model.name) == model.latest
    for version in versions:
        assert await desk.versions.get(ANN, version.name, version.version) == version
        for alias in version.aliases:
            assert await desk.versions.resolve(ANN, Ref(version.name, alias=alias)) == version
