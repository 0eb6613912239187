"""What `penstock models …` shows."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.bars import count_of
from penstock.cli.tables import table
from penstock.model_versions import ModelStage, ModelVersion
from penstock.promotions import GateResult, Promotion, PromotionPolicy, PromotionState
from penstock.registry import RegisteredModel
from penstock.registry_events import RegistryEvent

_LONG = 60  # characters of a value in a history


def models(found: Sequence[RegisteredModel]) -> str:
    """Models, a line each."""
    rows = [
        [
            each.name,
            str(each.last_version),
            _pairs(each.aliases),
            _pairs(_stages(each)),
            _when(each.update_time_ms),
            _pairs(each.tags),
        ]
        for each in found
    ]
    return table(["model", "version", "aliases", "stages", "changed", "tags"], rows, right=[1])


def model(model: RegisteredModel, versions: Sequence[ModelVersion], waiting: Sequence[Promotion]) -> str:
    """A model with its versions, what guards it, and the promotions that wait."""
    told = [_model_told(model)]
    if versions:
        rows = [_version_row(each) for each in versions]
        told.append(table(["version", "status", "stage", "aliases", "run", "made", "by"], rows, right=[0]))
    if model.policies:
        told.append(policies(model.policies))
    if waiting:
        rows = [
            [str(each.id), f"version {each.version} to {target(each)}", each.requested_by, _standing(each)]
            for each in waiting
        ]
        told.append(table(["promotion", "what", "requested by", "state"], rows, right=[0]))
    return "\n\n".join(told)


def policies(found: Sequence[PromotionPolicy]) -> str:
    """What guards what, a line for each gate: gates may have an OR in them."""
    rows = []
    for each in found:
        first, *more = each.gates or ["none"]
        rows.append([target(each), str(each.approvals), first])
        rows += [["", "", gate] for gate in more]
    return table(["guarded", "approvals", "gates"], rows, right=[1])


def events(found: Sequence[RegistryEvent], *, heading: bool = True) -> str:
    """Events, a line each."""
    names = ["event", "when", "who", "model", "what", "change"]
    return table(names if heading else [], [_event_row(each) for each in found], right=[0])


def _model_told(model: RegisteredModel) -> str:
    told = [
        ["model", model.name],
        ["description", model.description],
        ["aliases", _pairs(model.aliases)],
        ["stages", _pairs(_stages(model))],
        ["made", f"{_when(model.create_time_ms)} by {model.created_by}"],
        ["changed", _when(model.update_time_ms)],
        ["tags", _pairs(model.tags)],
    ]
    return table([], [row for row in told if row[1]])


def version_told(version: ModelVersion) -> str:
    """A version."""
    told = [
        ["model", version.name],
        ["version", str(version.version)],
        ["aliases", " ".join(version.aliases)],
        ["stage", version.stage.value],
        ["status", version.status.lower() + (f": {version.status_message}" if version.status_message else "")],
        ["BUT", version.source_problem],
        ["run", version.run_id],
        ["source", version.source],
        ["description", version.description],
        ["made", f"{_when(version.create_time_ms)} by {version.created_by}"],
        ["changed", _when(version.update_time_ms)],
        ["tags", _pairs(version.tags)],
    ]
    return table([], [row for row in told if row[1]])


def versions(found: Sequence[ModelVersion]) -> str:
    """Versions of any models, a line each."""
    rows = [[each.name, *_version_row(each), _pairs(each.tags)] for each in found]
    return table(["model", "version", "status", "stage", "aliases", "run", "made", "by", "tags"], rows, right=[1])


def _version_row(version: ModelVersion) -> list[str]:
    return [
        str(version.version),
        version.status.lower() + (f", but {version.source_problem}" if version.source_problem else ""),
        version.stage.value,
        " ".join(version.aliases),
        version.run_id or version.source,
        _when(version.create_time_ms),
        version.created_by,
    ]


def _event_row(event: RegistryEvent) -> list[str]:
    what = " ".join([event.kind.replace("_", " "), *([event.key] if event.key else [])])
    model = f"{event.name}/{event.version}" if event.version else event.name
    return [str(event.id), _when(event.time_ms), event.by, model, what, _change(event.before, event.after)]


def _change(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    told = []
    keys = {*before, *after}
    if keys & {"source", "version"}:
        keys -= {"path", "run_id"}  # which these tell
    for key in sorted(keys):
        old, new = (
            _gates(value) if key == "gates" else _short(value) for value in (before.get(key, ""), after.get(key, ""))
        )
        if old != new:
            told.append(f"{key}: {old} → {new or 'none'}" if old else f"{key}: {new}")
    return "; ".join(told)


def _gates(told: str) -> str:
    """Those of an event, without what came of them."""
    if not told:
        return ""
    return "; ".join(_short(gate["gate"] if isinstance(gate, dict) else gate) for gate in json.loads(told))


def gates(found: Sequence[GateResult]) -> str:
    """What came of gates."""
    rows = [
        [
            "passed" if gate.passed else "FAILED",
            gate.gate,
            "  ".join(f"{each.field} = {_short(each.value or 'none')}" for each in gate.values),
            gate.reason,
        ]
        for gate in found
    ]
    return table(["", "gate", "values", "why"], rows)


def promotion(found: Promotion) -> str:
    """A promotion that was requested, with what came of its gates."""
    told = [gates(found.results)] if found.results else []
    what = f"version {found.version} of {found.name!r} to {target(found)}"
    return "\n".join([*told, f"promotion {found.id}: {what}: {_standing(found)}"])


def _standing(promotion: Promotion) -> str:
    state, needed = promotion.state.lower(), promotion.approvals_needed
    approvals = sum(verdict.approved for verdict in promotion.verdicts)
    if promotion.state is not PromotionState.PENDING:
        return f"{state}, approved by {approvals}"
    return f"{state}, {approvals} of {needed} approvals" if approvals < needed else f"{state}, enough approvals"


def next_step(promotion: Promotion) -> str:
    """What moves a promotion that is pending; empty: nothing is needed."""
    failed = sum(not gate.passed for gate in promotion.results)
    if promotion.state is not PromotionState.PENDING:
        return ""
    if sum(verdict.approved for verdict in promotion.verdicts) < promotion.approvals_needed:
        told = f"{failed} of {count_of(len(promotion.results), 'gate')} would fail now; " if failed else ""
        return f"{told}somebody else approves it: penstock models approve {promotion.name} {promotion.id}"
    return (
        f"{count_of(failed, 'gate')} failed: once that is mended, whoever approves again, if only for the second time, "
        f"tries again: penstock models approve {promotion.name} {promotion.id}"
    )


def target(led: Promotion | PromotionPolicy) -> str:
    """Where it leads: `@champion`, `Production`."""
    return f"@{led.alias}" if led.stage is None else led.stage.value


def _stages(model: RegisteredModel) -> dict[str, int]:
    return {each.stage.value: each.version for each in model.latest_versions if each.stage is not ModelStage.NONE}


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(values.items()))


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _when(ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def as_json(thing: Any) -> str:
    """On a line."""
    return json.dumps(dataclasses.asdict(thing), ensure_ascii=False)
