"""Promotion of model versions: where to, what guards it, and who has a say in it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.gates import GateResult, parse_gates
from penstock_server.model.limits import check_text
from penstock_server.model.registry import MESSAGE_LIMIT, ModelVersion, Policy, Stage, check_alias

APPROVALS_LIMIT = 20
# Who has a say in one promotion.
VERDICTS_LIMIT = 50
_ALIAS = "@"
_LABELS = frozenset(stage.label for stage in Stage)
_GUARDABLE = (Stage.STAGING.label, Stage.PRODUCTION.label)


class PromotionState(enum.IntEnum):
    """Where a requested promotion stands; the numbers of the protocol and of the tables."""

    PENDING = 1
    PROMOTED = 2
    REJECTED = 3
    VOID = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be promoted, where to, and by which gates beside those of the policy. `target`: see Policy."""

    name: str
    version: int
    target: str
    gates: tuple[str, ...] = ()
    archive_others: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody says of a requested promotion."""

    by: str
    approved: bool
    comment: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that was requested. Times are ms since 1970 UTC.

    `approvals_needed` is what the policy asks for now.
    """

    id: int
    wish: Wish
    state: PromotionState
    requested_by: str
    comment: str
    created_ms: int
    settled_ms: int | None
    approvals_needed: int
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def approvals(self) -> int:
        """How many have approved it."""
        return sum(verdict.approved for verdict in self.verdicts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a wish. `previous` is the version that the alias named before; 0: none."""

    promoted: bool
    gates: list[GateResult]
    version: ModelVersion
    previous: int


def alias_target(alias: str) -> str:
    """An alias as a target. Raises InvalidArgument."""
    return _ALIAS + check_alias(alias, "target.alias")


def stage_target(stage: Stage | None) -> str:
    """A stage as a target. Raises InvalidArgument."""
    if stage in (None, Stage.NONE):
        raise InvalidArgument("target.stage", "must be Staging, Production or Archived")
    return stage.label


def where_to(target: str) -> str | Stage:
    """The alias, or the stage, that a target is."""
    return target[1:] if target.startswith(_ALIAS) else Stage[target.upper()]


def key(target: str) -> str:
    """A target as the history has it: the stage's label, or the alias, with its @ where it is called as a stage is."""
    name = target.removeprefix(_ALIAS)
    return target if name in _LABELS else name


def check_policy(policy: Policy) -> Policy:
    """A policy, whose target is one. Raises InvalidArgument, InvalidFilter of `gates[i]`.

    Nothing guards Archived: that is where a bad version is taken in a hurry, and where another's promotion sends one.
    """
    if policy.target not in _GUARDABLE and not policy.target.startswith(_ALIAS):
        raise InvalidArgument(
            "target", f"{policy.target} cannot be guarded: {' and '.join(_GUARDABLE)} can, and aliases"
        )
    parse_gates(policy.gates)
    if not 0 <= policy.approvals <= APPROVALS_LIMIT:
        raise InvalidArgument("approvals", f"{policy.approvals} is not within 0 to {APPROVALS_LIMIT}")
    return policy


def check_comment(comment: str) -> str:
    """Why somebody wants, approves or rejects a promotion. Raises InvalidArgument."""
    return check_text("comment", comment, MESSAGE_LIMIT)


def in_words(results: Sequence[GateResult]) -> list[dict[str, object]]:
    """What came of gates, as the history has it."""
    return [
        {
            "gate": each.gate,
            "passed": each.passed,
            "values": [asdict(value) for value in each.values],
            "reason": each.reason,
            "stored": each.stored,
        }
        for each in results
    ]
