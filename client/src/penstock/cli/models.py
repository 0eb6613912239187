"""`penstock models …`: the registry, from a terminal. Functions bear the names of the verbs."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping
from typing import Any

from penstock.cli import references
from penstock.cli.tables import table
from penstock.client import Client
from penstock.model_versions import ModelStage, ModelVersion
from penstock.promotions import GateResult, Promotion, PromotionPolicy
from penstock.registry import RegisteredModel
from penstock.registry_events import RegistryEvent

_LONG = 60  # characters of a value in a history
_EVENT = ["event", "when", "who", "model", "what", "change"]


def list_(args: argparse.Namespace) -> None:
    """Models, by name."""
    with Client(args.url) as client:
        found = client.registry.search_models(args.filter, args.order_by, args.limit + 1)
    for each in found[: args.limit] if args.json else ():
        print(_json(each))
    if not args.json:
        rows = [
            [
                each.name,
                str(each.last_version),
                _pairs(each.aliases),
                _pairs(_stages(each)),
                _when(each.update_time_ms),
                _pairs(each.tags),
            ]
            for each in found[: args.limit]
        ]
        print(table(["model", "version", "aliases", "stages", "changed", "tags"], rows, right=[1]))
    if len(found) > args.limit:
        print(f"(the first {args.limit}; more with --limit)", file=sys.stderr)


def show(args: argparse.Namespace) -> None:
    """A model, or a version."""
    with Client(args.url) as client:
        if _is_version(args.ref):
            version = client.registry.resolve(args.ref)
            print(_json(version) if args.json else _version_told(version))
            return
        model = client.registry.get_model(_plain(args.ref))
        versions = client.registry.search_versions(f"name = {_quoted(model.name)}", "version DESC")
        waiting = client.registry.promotions(model.name, "pending")
    if args.json:
        told = dataclasses.asdict(model) | {"versions": [dataclasses.asdict(each) for each in versions]}
        print(json.dumps(told, ensure_ascii=False))
        return
    print(_model_told(model))
    if versions:
        rows = [_version_row(each) for each in versions]
        print("\n" + table(["version", "status", "stage", "aliases", "run", "made", "by"], rows, right=[0]))
    if model.policies:
        rows = [[_target(each), str(each.approvals), " AND ".join(each.gates)] for each in model.policies]
        print("\n" + table(["guarded", "approvals", "gates"], rows, right=[1]))
    if waiting:
        rows = [
            [str(each.id), f"version {each.version} to {_target(each)}", each.requested_by, _standing(each)]
            for each in waiting
        ]
        print("\n" + table(["promotion", "what", "requested by", "state"], rows, right=[0]))


def register(args: argparse.Namespace) -> None:
    """Makes a version, and prints what names it."""
    if not args.run and not args.source:
        raise ValueError("name the RUN that the model comes from, or its --source")
    tags = dict(_pair(each) for each in args.tag)
    with Client(args.url) as client:
        made = client.registry.create_version(
            args.name,
            references.run_id(client, args.run) if args.run else "",
            args.path,
            source=args.source,
            description=args.description,
            tags=tags,
            create_model=True,
        )
    print(f"{made.name}/{made.version}")


def promote(args: argparse.Namespace) -> int:
    """Promotes. Returns 1 when a gate does not pass."""
    with Client(args.url) as client:
        version = _version(client, args.ref)
        result = client.registry.promote(
            version.name,
            version.version,
            alias=args.alias,
            stage=args.stage,
            gates=args.gate,
            expected=args.expected,
            archive_others=args.archive_others,
            dry_run=args.dry_run,
        )
    _show_gates(result.gates)
    what = f"version {version.version} of {version.name!r}"
    where = f"@{args.alias}" if args.alias else ModelStage.of(args.stage).value
    if not result:
        failed = sum(not gate.passed for gate in result.gates)
        print(
            f"penstock: {what} does not get to {where}: {failed} of {len(result.gates)} gates failed", file=sys.stderr
        )
        return 1
    if args.dry_run:
        print(f"{what} could get to {where}; nothing is moved", file=sys.stderr)
    else:
        before = f" (before: version {result.previous})" if result.previous else ""
        print(f"{what} is {where}{before}", file=sys.stderr)
    return 0


def request(args: argparse.Namespace) -> None:
    """Requests a promotion."""
    with Client(args.url) as client:
        version = _version(client, args.ref)
        made = client.registry.request_promotion(
            version.name,
            version.version,
            alias=args.alias,
            stage=args.stage,
            gates=args.gate,
            comment=args.comment,
            archive_others=args.archive_others,
        )
    _tell(made)


def approve(args: argparse.Namespace) -> int:
    """Approves. Returns 1 when there are enough approvals, and a gate does not pass."""
    with Client(args.url) as client:
        found = client.registry.approve(args.name, _promotion(client, args), args.comment)
    _tell(found)
    return int(any(not gate.passed for gate in found.results))


def reject(args: argparse.Namespace) -> None:
    """Rejects."""
    with Client(args.url) as client:
        _tell(client.registry.reject(args.name, _promotion(client, args), args.comment))


def history(args: argparse.Namespace) -> None:
    """Events, the newest first."""
    with Client(args.url) as client:
        name, number = _plain(args.ref), 0
        if _is_version(args.ref):
            # Of one that is deleted, too: so a number is not looked up.
            name, _, which = name.partition("/")
            if which.isdecimal():
                number = int(which)
            else:
                version = client.registry.resolve(args.ref)
                name, number = version.name, version.version
        found = client.registry.events(name, number, kinds=args.kind, key=args.key, limit=args.limit + 1)
    shown = found[: args.limit]
    if args.json:
        for each in shown:
            print(_json(each))
    else:
        print(table(_EVENT, [_event_row(each) for each in shown], right=[0]))
    if len(found) > args.limit:
        print(f"(the latest {args.limit}; more with --limit)", file=sys.stderr)


def alias(args: argparse.Namespace) -> None:
    """Moves or deletes an alias."""
    with Client(args.url) as client:
        if args.delete:
            name = _plain(args.ref)
            previous = client.registry.delete_alias(name, args.alias, expected=args.expected)
            print(f"{name}@{args.alias} names nothing (before: version {previous})", file=sys.stderr)
            return
        version = _version(client, args.ref)
        previous = client.registry.set_alias(version.name, args.alias, version.version, expected=args.expected)
    before = f" (before: version {previous})" if previous else ""
    print(f"{version.name}@{args.alias} names version {version.version}{before}", file=sys.stderr)


def stage(args: argparse.Namespace) -> None:
    """Brings a version into a stage."""
    with Client(args.url) as client:
        version = _version(client, args.ref)
        found = client.registry.set_stage(version.name, version.version, args.stage, archive_others=args.archive_others)
    print(f"version {found.version} of {found.name!r} is in {found.stage}", file=sys.stderr)


def delete(args: argparse.Namespace) -> None:
    """Deletes versions, or models. All that is named is looked up before the first goes."""
    with Client(args.url) as client:
        if args.whole:
            for model in [client.registry.get_model(_plain(ref)) for ref in args.refs]:
                client.registry.delete_model(model.name)
                print(f"{model.name}: deleted with all its versions", file=sys.stderr)
            return
        for version in [_version(client, ref) for ref in args.refs]:
            client.registry.delete_version(version.name, version.version)
            print(f"{version.name}/{version.version}: deleted", file=sys.stderr)


def watch(args: argparse.Namespace) -> None:
    """Events, as they come."""
    with Client(args.url) as client:
        client.registry.events(limit=1)  # where there is no server, this tells; later, it is waited for
        for event in client.registry.watch(args.names, args.kind, args.key, after=args.after, patience=None):
            print(_json(event) if args.json else table([], [_event_row(event)]), flush=True)


# What is typed.


def _plain(ref: str) -> str:
    return ref.removeprefix("models:/")


def _is_version(ref: str) -> bool:
    return any(mark in _plain(ref) for mark in "/@")


def _version(client: Client, ref: str) -> ModelVersion:
    """Raises ValueError for a model without more."""
    if not _is_version(ref):
        raise ValueError(f"{ref!r} names no version: write {ref}/3, {ref}@champion, {ref}/Production or {ref}/latest")
    return client.registry.resolve(ref)


def _promotion(client: Client, args: argparse.Namespace) -> int:
    """Raises ValueError unless it is told, or there is only one."""
    if args.promotion is not None:
        number: int = args.promotion
        return number
    waiting = client.registry.promotions(args.name, "pending")
    if len(waiting) != 1:
        told = "; ".join(f"{each.id}: version {each.version} to {_target(each)}" for each in waiting)
        raise ValueError(f"several promotions wait; name one of {told}" if waiting else "no promotion waits for that")
    return waiting[0].id


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no tag: write KEY=VALUE")
    return key, value


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# What is shown.


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


def _version_told(version: ModelVersion) -> str:
    told = [
        ["model", version.name],
        ["version", str(version.version)],
        ["aliases", " ".join(version.aliases)],
        ["stage", version.stage.value],
        ["status", version.status.lower() + (f": {version.status_message}" if version.status_message else "")],
        ["run", version.run_id],
        ["source", version.source],
        ["description", version.description],
        ["made", f"{_when(version.create_time_ms)} by {version.created_by}"],
        ["changed", _when(version.update_time_ms)],
        ["tags", _pairs(version.tags)],
    ]
    return table([], [row for row in told if row[1]])


def _version_row(version: ModelVersion) -> list[str]:
    return [
        str(version.version),
        version.status.lower(),
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
            _short(_gates(value) if key == "gates" else value) for value in (before.get(key, ""), after.get(key, ""))
        )
        if old != new:
            told.append(f"{key}: {old} → {new or 'none'}" if old else f"{key}: {new}")
    return "; ".join(told)


def _gates(told: str) -> str:
    """Those of an event, without what came of them."""
    if not told:
        return ""
    return "; ".join(str(gate["gate"] if isinstance(gate, dict) else gate) for gate in json.loads(told))


def _show_gates(gates: list[GateResult]) -> None:
    if gates:
        rows = [
            [
                "passed" if gate.passed else "FAILED",
                gate.gate,
                "  ".join(f"{each.field} = {_short(each.value or 'none')}" for each in gate.values),
                gate.reason,
            ]
            for gate in gates
        ]
        print(table(["", "gate", "values", "why"], rows))


def _tell(promotion: Promotion) -> None:
    _show_gates(promotion.results)
    what = f"version {promotion.version} of {promotion.name!r} to {_target(promotion)}"
    print(f"promotion {promotion.id}: {what}: {_standing(promotion)}")


def _standing(promotion: Promotion) -> str:
    approvals = sum(verdict.approved for verdict in promotion.verdicts)
    return f"{promotion.state.lower()}, {approvals} of {promotion.approvals_needed} approvals"


def _target(led: Promotion | PromotionPolicy) -> str:
    return f"@{led.alias}" if led.stage is None else led.stage.value


def _stages(model: RegisteredModel) -> dict[str, int]:
    return {each.stage.value: each.version for each in model.latest_versions if each.stage is not ModelStage.NONE}


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(values.items()))


def _short(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _when(ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(ms / 1000, datetime.UTC).astimezone():%Y-%m-%d %H:%M:%S}"


def _json(thing: Any) -> str:
    return json.dumps(dataclasses.asdict(thing), ensure_ascii=False)
