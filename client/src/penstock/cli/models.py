"""`penstock models …`: the registry, from a terminal. Functions bear the names of the verbs."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable

from penstock.bars import count_of
from penstock.cli import artifacts, model_tables, references
from penstock.cli.asking import confirmed
from penstock.client import Client
from penstock.errors import TimedOut
from penstock.model_versions import ModelStage, ModelVersion
from penstock.promotions import Promotion
from penstock.registry_client import files_of

_LATE = 124


def list_(args: argparse.Namespace) -> None:
    """Models, by name."""
    with Client(args.url) as client:
        found = client.registry.search_models(args.filter, args.order_by, args.limit + 1)
    for each in found[: args.limit] if args.json else ():
        print(model_tables.as_json(each))
    if not args.json:
        print(model_tables.models(found[: args.limit]))
    if len(found) > args.limit:
        print(f"(the first {args.limit}; more with --limit)", file=sys.stderr)


def show(args: argparse.Namespace) -> None:
    """A model, or a version."""
    with Client(args.url) as client:
        if _is_version(args.ref):
            version = client.registry.resolve(args.ref)
            print(model_tables.as_json(version) if args.json else model_tables.version_told(version))
            return
        model = client.registry.get_model(_plain(args.ref))
        versions = client.registry.search_versions(f"name = {_quoted(model.name)}", "version DESC")
        waiting = client.registry.promotions(model.name, "pending")
    if args.json:
        told = dataclasses.asdict(model) | {"versions": [dataclasses.asdict(each) for each in versions]}
        print(json.dumps(told, ensure_ascii=False))
        return
    print(model_tables.model(model, versions, waiting))


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
    print(model_tables.as_json(made) if args.json else f"{made.name}/{made.version}")


def tag(args: argparse.Namespace) -> None:
    """Sets or deletes tags."""
    pairs = {} if args.delete else dict(_pair(each) for each in args.tags)
    with Client(args.url) as client:
        registry = client.registry
        if _is_version(args.ref):
            version = registry.resolve(args.ref)
            what = f"{version.name}/{version.version}"
            if args.delete:
                registry.delete_version_tags(version.name, version.version, args.tags)
            else:
                registry.set_version_tags(version.name, version.version, pairs)
        else:
            what = _plain(args.ref)
            if args.delete:
                registry.delete_model_tags(what, args.tags)
            else:
                registry.set_model_tags(what, pairs)
    print(f"{what}: {count_of(len(pairs or args.tags), 'tag')} {'deleted' if args.delete else 'set'}", file=sys.stderr)


def search(args: argparse.Namespace) -> None:
    """Versions, of any model."""
    with Client(args.url) as client:
        found = client.registry.search_versions(args.filter, args.order_by, args.limit + 1)
    for each in found[: args.limit] if args.json else ():
        print(model_tables.as_json(each))
    if not args.json:
        print(model_tables.versions(found[: args.limit]))
    if len(found) > args.limit:
        print(f"(the first {args.limit}; more with --limit)", file=sys.stderr)


def promote(args: argparse.Namespace) -> int:
    """Promotes. Returns 1 when a gate does not pass."""
    with Client(args.url) as client:
        version = _version(client, args.ref)
        others = _others(client, version, args.stage, archive=args.archive_others)
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
    if args.json:
        print(json.dumps(dataclasses.asdict(result), ensure_ascii=False))
    elif result.gates:
        print(model_tables.gates(result.gates))
    what = f"version {version.version} of {version.name!r}"
    where = _led(args)
    if not result:
        failed = sum(not gate.passed for gate in result.gates)
        gates = f"{failed} of {count_of(len(result.gates), 'gate')} failed"
        print(f"penstock: {what} does not get to {where}: {gates}", file=sys.stderr)
        return 1
    if args.dry_run:
        print(f"{what} could get to {where}; nothing is moved", file=sys.stderr)
    else:
        before = f" (before: version {result.previous})" if result.previous else ""
        print(f"{what} is {where}{before}{others}", file=sys.stderr)
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
    _print_promotion(made, args)


def approve(args: argparse.Namespace) -> int:
    """Approves. Returns 1 when there are enough approvals, and a gate does not pass."""
    with Client(args.url) as client:
        found = client.registry.approve(args.name, _promotion(client, args), args.comment)
    _print_promotion(found, args)
    return int(any(not gate.passed for gate in found.results))


def reject(args: argparse.Namespace) -> None:
    """Rejects."""
    with Client(args.url) as client:
        _print_promotion(client.registry.reject(args.name, _promotion(client, args), args.comment), args)


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
        if not found and name and not client.registry.events(name, number, limit=1):
            raise ValueError(f"nothing ever happened to {f'{name}/{number}' if number else name}: there was none")
    shown = found[: args.limit]
    if args.json:
        for each in shown:
            print(model_tables.as_json(each))
    else:
        print(model_tables.events(shown))
    if len(found) > args.limit:
        print(f"(the latest {args.limit}; more with --limit)", file=sys.stderr)


def alias(args: argparse.Namespace) -> None:
    """Moves or deletes an alias."""
    with Client(args.url) as client:
        if args.delete:
            name, expected = _plain(args.ref), args.expected
            if _is_version(args.ref):  # from which it is to be taken
                version = client.registry.resolve(args.ref)
                name, expected = version.name, version.version if expected is None else expected
            previous = client.registry.delete_alias(name, args.alias, expected=expected)
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
        others = _others(client, version, args.stage, archive=args.archive_others)
        found = client.registry.set_stage(version.name, version.version, args.stage, archive_others=args.archive_others)
    if args.json:
        print(model_tables.as_json(found))
    print(f"version {found.version} of {found.name!r} is in {found.stage}{others}", file=sys.stderr)


def policy(args: argparse.Namespace) -> None:
    """What guards the aliases and stages of a model, or one of them; sets or ends that."""
    name, where = _plain(args.name), {"alias": args.alias, "stage": args.stage}
    led = _led(args)
    setting = bool(args.gate) or args.approvals is not None
    if args.clear and setting:
        raise ValueError("--clear is typed without --gate and --approvals")
    if not led and (args.clear or setting):
        raise ValueError("name the --alias or the --stage")
    with Client(args.url) as client:
        if args.clear:
            client.registry.delete_policy(name, **where)
            print(f"nothing guards {led} of {name!r} any more", file=sys.stderr)
            return
        if setting:
            client.registry.set_policy(name, **where, gates=args.gate, approvals=args.approvals or 0)
        found = client.registry.get_model(name).policies
    found = [each for each in found if led in ("", model_tables.target(each))]
    for each in found if args.json else ():
        print(model_tables.as_json(each))
    if found and not args.json:
        print(model_tables.policies(found))
    if not found:
        print(f"nothing guards {led + ' of ' if led else ''}{name!r}", file=sys.stderr)


def get(args: argparse.Namespace) -> None:
    """Brings the files of a version here, as `artifacts get` does."""
    with Client(args.url) as client:
        owner, path = files_of(_version(client, args.ref))
        artifacts.bring(client, owner, path, args.output)


def wait(args: argparse.Namespace) -> int:
    """Waits until another version is there, and prints what names it. Returns 124, as `timeout` does, if none comes."""
    with Client(args.url) as client:
        name = client.registry.get_model(_plain(args.name)).name  # where there is no server, this tells at once
        try:
            found = client.registry.wait_for(
                name,
                alias=args.alias,
                stage=args.stage,
                version=args.version,
                other_than=args.other_than,
                timeout=args.timeout,
            )
        except TimedOut as error:
            print(f"penstock: {error}", file=sys.stderr)
            return _LATE
    print(f"{found.name}/{found.version}")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Deletes versions, or models. All that is named is looked up before the first goes. Returns 1 if nothing went."""
    with Client(args.url) as client:
        whole = [client.registry.get_model(_plain(ref)) for ref in args.refs] if args.whole else []
        versions = [] if args.whole else [_version(client, ref) for ref in args.refs]
        told = [f"{model.name} with all its versions{_aliases(model.aliases)}" for model in whole]
        told += [f"{version.name}/{version.version}{_aliases(version.aliases)}" for version in versions]
        if not args.yes and not confirmed(f"Delete {', '.join(told)} for good?"):
            print("penstock: nothing is deleted; the same with --yes deletes it for good", file=sys.stderr)
            return 1
        for model in whole:
            client.registry.delete_model(model.name)
            print(f"{model.name}: deleted with all its versions", file=sys.stderr)
        for version in versions:
            client.registry.delete_version(version.name, version.version)
            print(f"{version.name}/{version.version}: deleted", file=sys.stderr)
    return 0


def watch(args: argparse.Namespace) -> None:
    """Events, as they come."""
    with Client(args.url) as client:
        client.registry.events(limit=1)  # where there is no server, this tells; later, it is waited for
        names = [_plain(name) for name in args.names]
        for name in names:
            if not client.registry.search_models(f"name = {_quoted(name)}", limit=1):
                print(f"penstock: there is no model {name!r} yet", file=sys.stderr)
        print(f"waiting for what happens to {', '.join(names) or 'models'}; Ctrl-C ends it", file=sys.stderr)
        for event in client.registry.watch(names, args.kind, args.key, after=args.after, patience=None):
            print(model_tables.as_json(event) if args.json else model_tables.events([event], heading=False), flush=True)


# What is told.


def as_typed(sentence: str) -> str:
    """What the server says of methods, for who types commands."""
    for method in ("request_promotion", "promote"):
        sentence = sentence.replace(f"{method}()", f"`penstock models {method.partition('_')[0]}`")
    return sentence


def _print_promotion(found: Promotion, args: argparse.Namespace) -> None:
    print(model_tables.as_json(found) if args.json else model_tables.promotion(found))
    if step := model_tables.next_step(found):
        print(f"penstock: {step}", file=sys.stderr)


def _others(client: Client, version: ModelVersion, stage: str | None, *, archive: bool) -> str:
    """What becomes of the other versions in a stage, or is to be known of them, once this one gets there."""
    if stage is None or (led := ModelStage.of(stage)) in (ModelStage.NONE, ModelStage.ARCHIVED):
        return ""
    there = client.registry.search_versions(f"name = {_quoted(version.name)} AND stage = '{led}'", "version")
    numbers = [each.version for each in there if each.version != version.version]
    if archive and numbers:
        return f"; archived: version {', '.join(map(str, numbers))}"
    if numbers and numbers[-1] > version.version:
        return f"; but models:/{version.name}/{led} is version {numbers[-1]}, the newest there, until that is archived"
    return ""


def _aliases(aliases: Iterable[str]) -> str:
    told = ", ".join(f"@{alias}" for alias in aliases)
    return f" ({told})" if told else ""


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
        told = "; ".join(f"{each.id}: version {each.version} to {model_tables.target(each)}" for each in waiting)
        raise ValueError(f"several promotions wait; name one of {told}" if waiting else "no promotion waits for that")
    return waiting[0].id


def _led(args: argparse.Namespace) -> str:
    """What `--alias` or `--stage` names, as it is shown; empty: neither. Raises ValueError."""
    if args.stage is not None:
        return ModelStage.of(args.stage).value
    return "" if args.alias is None else f"@{args.alias}"


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is no tag: write KEY=VALUE")
    return key, value


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
