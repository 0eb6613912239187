"""Somebody who does anything to the registry, much of it in vain."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from registering import ANN, ELSEWHERE, Desk

from penstock_server.core.promotions import Promotions
from penstock_server.model.access import Caller
from penstock_server.model.errors import PenstockError
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.promotions import Promotion, Wish
from penstock_server.model.registry import (
    ModelVersion,
    NewVersion,
    Policy,
    RegisteredModel,
    Stage,
    VersionStatus,
    run_source,
)
from penstock_server.model.runs import RunId

NAMES = ("iris", "lily", "rose")
USERS = ("ann", "bob", "cat", "Žofie")
ALIASES = ("champion", "challenger", "1st")
TARGETS = ("@champion", "@challenger", "Staging", "Production")
KEYS = ("a", "b", "ü 2")
TEXTS = ("", "x", "y ☃")
GATES = (
    "tags.a IS NOT NULL",
    "tags.b = 'x' OR version > 2",
    "NOT stage = 'Archived'",
    "params.lr = '0.1'",
    "tags.a = champion.tags.a",
    "version >= Production.attributes.version",
    "params.lr = champoin.params.lr OR version > 0",
    "tags.`ü 2` != 'ü'",
    "f1 >",
)
REQUESTS = ("", "", "", "one", "two", "three")

T = TypeVar("T")
Call = partial[Awaitable[Any]]

_NUMBERS = itertools.count(1)


@dataclass
class Ground:
    """What several of them know: the runs that models come from, and what they have seen made."""

    runs: list[RunId] = field(default_factory=list)
    experiments: list[ExperimentId] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    promotions: list[tuple[str, int]] = field(default_factory=list)
    guarded: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    async def lay(cls, desk: Desk) -> Ground:
        """Two models to begin with and no other, and two experiments of a run each."""
        ground = cls()
        for model in (await desk.models.search(ANN))[0]:
            await desk.models.delete(ANN, model.name)
        for name in NAMES[:2]:
            ground.newest[name] = (await desk.version(name)).version
        for _ in range(2):
            made = await desk.experiments.create(ANN, f"experiment {next(_NUMBERS)}")
            run = await desk.run("model/weights", "code", experiment_id=made.id, params={"lr": "0.1"})
            ground.experiments.append(made.id)
            ground.runs.append(run.id)
        return ground


@dataclass
class Act:
    """One thing that was tried, and what came of it."""

    caller: Caller
    what: str
    answer: Any = None
    error: PenstockError | None = None

    @property
    def made_version(self) -> bool:
        """Whether it made a version, or was told of the one that the same request made before."""
        return self.what.startswith("ModelVersions.create(") and self.error is None

    def __str__(self) -> str:
        return f"{self.caller.user} {self.what}: {self.error!r}" if self.error else f"{self.caller.user} {self.what}"


# How often each is done, beside the others.
_OFTEN = {
    "create": 1, "rename": 2, "describe": 1, "delete": 0.5, "tag": 3, "untag": 3,
    "add": 12, "update_version": 5, "delete_version": 2, "tag_version": 4, "untag_version": 3,
    "move_stage": 9, "set_alias": 5, "delete_alias": 2,
    "set_policy": 3, "delete_policy": 2, "promote": 7, "request_promotion": 5, "approve": 8, "reject": 2,
    "delete_run": 2, "restore_run": 4, "delete_experiment": 0.5, "restore_experiment": 2,
}  # fmt: skip


class Hand:
    """Does one thing after another, as chance has it."""

    def __init__(self, desk: Desk, ground: Ground, chance: random.Random) -> None:
        self.desk = desk
        self.ground = ground
        self.chance = chance
        self.promotions = Promotions(desk.db)

    async def act(self) -> Act:
        """Does one thing; what the registry refuses is told."""
        user = self.chance.choice(USERS)
        caller = Caller("tester", ANN.workspace_id, user, f"request {next(_NUMBERS)}")
        [kind] = self.chance.choices(list(_OFTEN), list(_OFTEN.values()))
        call: Call = getattr(self, f"_{kind}")(caller)
        act = Act(caller, f"{call.func.__qualname__}{call.args[1:]} {call.keywords or ''}".rstrip())
        try:
            act.answer = await call()
        except PenstockError as error:
            act.error = error
        else:
            self._learn(call, act.answer)
        return act

    def _learn(self, call: Call, answer: object) -> None:
        _, *arguments = call.args
        match answer, arguments:
            case ModelVersion(name=name, version=version), _:
                self.ground.newest[name] = max(version, self.ground.newest.get(name, 0))
            case (Promotion(id=number, wish=Wish(name=name)), _), _:
                self.ground.promotions.append((name, number))
            case RegisteredModel(name=name), [str(old), *_]:
                self.ground.newest[name] = self.ground.newest.pop(old, 0)
                self.ground.promotions = [
                    (name if each[0] == old else each[0], each[1]) for each in self.ground.promotions
                ]
            case None, [str(name)]:  # it is deleted
                self.ground.newest.pop(name, None)
                self.ground.promotions = [each for each in self.ground.promotions if each[0] != name]
                self.ground.guarded = [each for each in self.ground.guarded if each[0] != name]
            case None, [str(name), Policy(target=target, approvals=approvals)] if approvals:
                self.ground.guarded.append((name, target))

    def _create(self, caller: Caller) -> Call:
        return partial(self.desk.models.create, caller, self._name(), self._text(), self._tags(), self._request())

    def _rename(self, caller: Caller) -> Call:
        return partial(self.desk.models.update, caller, self._name(), self._name(), self._maybe(self._text()))

    def _describe(self, caller: Caller) -> Call:
        return partial(self.desk.models.update, caller, self._name(), None, self._text())

    def _delete(self, caller: Caller) -> Call:
        return partial(self.desk.models.delete, caller, self._name())

    def _tag(self, caller: Caller) -> Call:
        return partial(self.desk.models.set_tags, caller, self._name(), self._tags())

    def _untag(self, caller: Caller) -> Call:
        return partial(self.desk.models.delete_tags, caller, self._name(), self._keys()[:1])

    def _add(self, caller: Caller) -> Call:
        run_id = self._run() if self.chance.random() < 0.9 else RunId(uuid.UUID(int=self.chance.getrandbits(128)))
        name, alias = self._name(), self.chance.choice(ALIASES)
        of: list[dict[str, Any]] = [
            {"run_id": run_id, "path": "model"},
            {"run_id": run_id, "path": "code"},
            {"run_id": run_id},
            {"run_id": run_id, "path": "nowhere"},
            {"run_id": run_id, "path": "nowhere", "status": VersionStatus.PENDING},
            {"run_id": run_id, "path": "model", "status": VersionStatus.PENDING},
            {"run_id": run_id, "source": ELSEWHERE},
            {"source": ELSEWHERE},
            {"source": run_source(run_id, "model")},
            {"source": f"models:/{name}/{self._version(name)}"},
            {"source": f"models:/{name}@{alias}"},
            {"source": ELSEWHERE, "path": "model"},
        ]
        new = NewVersion(
            self._name(),
            **self.chance.choice(of),
            description=self._text(),
            tags=self._tags(),
            request_id=self._request(),
            create_model=self.chance.random() < 0.6,
        )
        return partial(self.desk.versions.create, caller, new)

    def _update_version(self, caller: Caller) -> Call:
        status = self._maybe(self.chance.choice(list(VersionStatus)))
        texts = self._maybe(self._text()), status, self._maybe(self._text())
        return partial(self.desk.versions.update, caller, *self._one(), *texts)

    def _delete_version(self, caller: Caller) -> Call:
        return partial(self.desk.versions.delete, caller, *self._one())

    def _tag_version(self, caller: Caller) -> Call:
        return partial(self.desk.versions.set_tags, caller, *self._one(), self._tags())

    def _untag_version(self, caller: Caller) -> Call:
        return partial(self.desk.versions.delete_tags, caller, *self._one(), self._keys()[:2])

    def _move_stage(self, caller: Caller) -> Call:
        stage = self.chance.choice([*Stage, Stage.PRODUCTION, Stage.PRODUCTION, Stage.STAGING])
        others = self._others(stage.label)
        return partial(self.desk.versions.move_stage, caller, *self._one(), stage, archive_others=others)

    def _set_alias(self, caller: Caller) -> Call:
        name, version = self._one()
        return partial(self.desk.versions.set_alias, caller, name, self._alias(), version, self._expected(name))

    def _delete_alias(self, caller: Caller) -> Call:
        name = self._name()
        return partial(self.desk.versions.delete_alias, caller, name, self._alias(), self._expected(name))

    def _set_policy(self, caller: Caller) -> Call:
        policy = Policy(self.chance.choice(TARGETS), self._gates(), self.chance.choice((0, 1, 1, 1, 2, 2, -1)))
        return partial(self.promotions.set_policy, caller, self._name(), policy)

    def _delete_policy(self, caller: Caller) -> Call:
        return partial(self.promotions.delete_policy, caller, self._name(), self.chance.choice(TARGETS))

    def _promote(self, caller: Caller) -> Call:
        wish = self._wish()
        expected = self._expected(wish.name)
        return partial(self.promotions.promote, caller, wish, expected=expected, dry_run=self.chance.random() < 0.1)

    def _request_promotion(self, caller: Caller) -> Call:
        wish = self._wish()
        if self.ground.guarded and self.chance.random() < 0.9:
            name, target = self.chance.choice(self.ground.guarded[-4:])
            wish = Wish(name, self._version(name), target, wish.gates, self._others(target))
        return partial(self.promotions.request, caller, wish, self._text())

    def _approve(self, caller: Caller) -> Call:
        return partial(self.promotions.approve, caller, *self._promotion(), self._text())

    def _reject(self, caller: Caller) -> Call:
        return partial(self.promotions.reject, caller, *self._promotion(), self._text())

    def _delete_run(self, caller: Caller) -> Call:
        return partial(self.desk.runs.delete, caller, self._run(), force=self.chance.random() < 0.6)

    def _restore_run(self, caller: Caller) -> Call:
        return partial(self.desk.runs.restore, caller, self._run())

    def _delete_experiment(self, caller: Caller) -> Call:
        experiment_id = self.chance.choice(self.ground.experiments)
        return partial(self.desk.experiments.delete, caller, experiment_id, force=self.chance.random() < 0.6)

    def _restore_experiment(self, caller: Caller) -> Call:
        return partial(self.desk.experiments.restore, caller, self.chance.choice(self.ground.experiments))

    def _name(self) -> str:
        """One that there is, most likely."""
        return self.chance.choice([*NAMES, *self.ground.newest, *self.ground.newest, *self.ground.newest])

    def _text(self) -> str:
        return self.chance.choice(TEXTS)

    def _tags(self) -> dict[str, str]:
        return {key: self._text() for key in self._keys()}

    def _keys(self) -> list[str]:
        return self.chance.choices(KEYS, k=self.chance.randint(0, 3))

    def _request(self) -> str:
        return self.chance.choice(REQUESTS)

    def _maybe(self, what: T) -> T | None:
        return what if self.chance.random() < 0.6 else None

    def _run(self) -> RunId:
        return self.chance.choice(self.ground.runs)

    def _version(self, name: str) -> int:
        """One of the last, most likely."""
        newest = self.ground.newest.get(name, 0)
        return self.chance.choice([*range(max(1, newest - 3), newest + 1), max(1, newest), newest + 1])

    def _one(self) -> tuple[str, int]:
        name = self._name()
        return name, self._version(name)

    def _alias(self) -> str:
        return self.chance.choice(ALIASES)

    def _expected(self, name: str) -> int | None:
        return self.chance.choice((None, None, None, None, None, 0, self._version(name)))

    def _gates(self) -> tuple[str, ...]:
        broken = GATES[-1:] if self.chance.random() < 0.02 else ()
        return (*self.chance.choices(GATES[:-1], k=self.chance.choice((0, 0, 0, 1, 1, 2))), *broken)

    def _wish(self) -> Wish:
        target = self.chance.choice(TARGETS)
        return Wish(*self._one(), target, self._gates(), self._others(target))

    def _others(self, target: str) -> bool:
        """Whether others are archived, which goes with some targets only."""
        return self.chance.random() < (0.5 if target in ("Staging", "Production") else 0.05)

    def _promotion(self) -> tuple[str, int]:
        known = self.ground.promotions
        return self.chance.choice([(self._name(), 1), *known[-5:], *known[-2:], *known[-2:]])
