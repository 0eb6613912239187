"""Promotion of model versions: by gates, which are filters that the version's run must meet, and by approvals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.calls import REGISTRY, Flow, in_pages, listed, request
from penstock.model_versions import ModelStage, ModelVersion, Named, numbered, target, version_of
from penstock.v1 import registry_pb2 as pb


class PromotionState(Named):
    """Where a requested promotion stands. VOID: its version was deleted, or another request for it was promoted."""

    PENDING = "PENDING"
    PROMOTED = "PROMOTED"
    REJECTED = "REJECTED"
    VOID = "VOID"

    @property
    def wire(self) -> str:
        """As in the protocol."""
        return f"PROMOTION_STATE_{self.name}"


@dataclass(frozen=True, slots=True)
class PromotionPolicy:
    """What guards an alias or a stage (one of them is None): nothing gets there but by its gates and approvals."""

    alias: str | None
    stage: ModelStage | None
    gates: list[str]
    approvals: int  # how many others than the requester must approve


@dataclass(frozen=True, slots=True)
class GateValue:
    """A value that a gate was about, as text; None where there is none. `version` is whose it is."""

    field: str
    value: str | None
    version: int


@dataclass(frozen=True, slots=True)
class GateResult:
    """What came of one gate. `reason` tells people why; `stored`: it stands in the policy of the model."""

    gate: str
    passed: bool
    reason: str
    stored: bool
    values: list[GateValue] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """What came of `promote`: `promoted` when all gates pass, and then the move is made, unless it was a dry run.

    `previous` is the version that the alias named before; 0: none.
    """

    promoted: bool
    gates: list[GateResult]
    version: ModelVersion
    previous: int

    def __bool__(self) -> bool:
        return self.promoted


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody says of a requested promotion. The time is ms since 1970 UTC."""

    by: str
    approved: bool
    comment: str
    time_ms: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion that was requested. Times are ms since 1970 UTC.

    `results` tells how the gates are, where the call has evaluated them: `request_promotion`, and the `approve` with
    which there are enough approvals.
    """

    id: int
    name: str
    version: int
    alias: str | None
    stage: ModelStage | None
    gates: list[str]
    state: PromotionState
    requested_by: str
    comment: str
    create_time_ms: int
    settle_time_ms: int | None
    approvals_needed: int
    archive_others: bool
    verdicts: list[Verdict] = field(default_factory=list)
    results: list[GateResult] = field(default_factory=list)


def policy_of(message: pb.PromotionPolicy) -> PromotionPolicy:
    """From the wire."""
    alias, stage = _led(message.target)
    return PromotionPolicy(alias, stage, list(message.gates), message.approvals)


def result_of(message: pb.GateResult) -> GateResult:
    """From the wire."""
    values = [
        GateValue(each.field, each.value if each.HasField("value") else None, each.version) for each in message.values
    ]
    return GateResult(message.gate, message.passed, message.reason, message.stored, values)


def promotion_of(message: pb.Promotion, gates: Sequence[pb.GateResult] = ()) -> Promotion:
    """From the wire."""
    alias, stage = _led(message.target)
    return Promotion(
        id=message.promotion_id,
        name=message.name,
        version=message.version,
        alias=alias,
        stage=stage,
        gates=list(message.gates),
        state=PromotionState[pb.PromotionState.Name(message.state).removeprefix("PROMOTION_STATE_")],
        requested_by=message.requested_by,
        comment=message.comment,
        create_time_ms=message.create_time_ms,
        settle_time_ms=message.settle_time_ms if message.HasField("settle_time_ms") else None,
        approvals_needed=message.approvals_needed,
        archive_others=message.archive_others,
        verdicts=[Verdict(each.by, each.approved, each.comment, each.time_ms) for each in message.verdicts],
        results=[result_of(each) for each in gates],
    )


def _led(message: pb.PromotionTarget) -> tuple[str | None, ModelStage | None]:
    if message.WhichOneof("target") == "alias":
        return message.alias, None
    return None, ModelStage.from_wire(message.stage)


def promote(
    name: str,
    version: int,
    *,
    alias: str | None = None,
    stage: ModelStage | str | None = None,
    gates: Sequence[str] = (),
    expected: int | None = None,
    archive_others: bool = False,
    dry_run: bool = False,
) -> Flow[PromotionResult]:
    """Move an alias or a stage to a version if all gates pass. That some do not is an answer, and no error.

    The gates are evaluated by the server, in the transaction of the move, and those of the policy that guards the
    alias or stage before these.

    Args:
        name: the model.
        version: which of its versions.
        alias: the alias that is to name it. This or `stage`.
        stage: Staging, Production or Archived.
        gates: filters (docs/search.md) over the metrics, params and tags of the version's run, such as
            `metrics.accuracy >= 0.9`. A value may be that of the version that an alias or stage names:
            `metrics.f1 >= champion.metrics.f1`, which holds while nothing ever was `champion`. What is missing makes
            no gate pass, nor does its NOT.
        expected: the version that the alias must name now; 0: none. None: whatever it names.
        archive_others: with a stage, archives the versions that are in it, in the same transaction.
        dry_run: evaluates the gates, and leaves everything as it is.

    Raises:
        errors.NotFound: there is no such model or version.
        errors.AliasMoved: the alias does not name `expected`.
        errors.InvalidFilter: a gate does not follow the grammar.
        errors.Guarded: approvals are asked for; see `request_promotion`. Not in a dry run.
    """
    message = pb.PromoteRequest(
        name=name,
        version=numbered(version),
        target=target(alias, stage),
        gates=listed(gates),
        expected=expected,
        archive_others=archive_others,
        dry_run=dry_run,
    )
    answer = yield request(REGISTRY, "Promote", message)
    results = [result_of(each) for each in answer.gates]
    return PromotionResult(answer.promoted, results, version_of(answer.version), answer.previous)


def set_policy(
    name: str,
    *,
    alias: str | None = None,
    stage: ModelStage | str | None = None,
    gates: Sequence[str] = (),
    approvals: int = 0,
) -> Flow[None]:
    """Guard an alias or a stage of a model: nothing gets there but by these gates, as of `promote`.

    With `approvals`, to 20, only by `request_promotion`, and so many others than the requester must approve. Replaces
    the policy that guarded it. Archived cannot be guarded. Raises NotFound, InvalidFilter.
    """
    policy = pb.PromotionPolicy(target=target(alias, stage), gates=listed(gates), approvals=approvals)
    yield request(REGISTRY, "SetPromotionPolicy", pb.SetPromotionPolicyRequest(name=name, policy=policy))


def delete_policy(name: str, *, alias: str | None = None, stage: ModelStage | str | None = None) -> Flow[None]:
    """End the guarding of an alias or a stage. Raises NotFound when nothing guards it."""
    message = pb.DeletePromotionPolicyRequest(name=name, target=target(alias, stage))
    yield request(REGISTRY, "DeletePromotionPolicy", message)


def request_promotion(
    name: str,
    version: int,
    *,
    alias: str | None = None,
    stage: ModelStage | str | None = None,
    gates: Sequence[str] = (),
    comment: str = "",
    archive_others: bool = False,
) -> Flow[Promotion]:
    """Ask others to approve a promotion, as the policy of the alias or stage demands; arguments are as of `promote`.

    Asked again by the same user it is the same one. `comment` says why, to 1,000 characters. Raises NotFound,
    InvalidFilter; FailedPrecondition when the policy asks for no approvals, or when somebody else has asked for this
    already, or with other gates.
    """
    message = pb.RequestPromotionRequest(
        name=name,
        version=numbered(version),
        target=target(alias, stage),
        gates=listed(gates),
        comment=comment,
        archive_others=archive_others,
    )
    answer = yield request(REGISTRY, "RequestPromotion", message)
    return promotion_of(answer.promotion, answer.gates)


def approve(name: str, promotion_id: int, comment: str = "") -> Flow[Promotion]:
    """Approve a promotion that another has requested. The last approval that is needed makes the move, if the gates
    pass then: its state tells. Where they do not, to approve again tries once more.

    Raises NotFound; FailedPrecondition when it is settled; PermissionDenied to who has requested it.
    """
    message = pb.ApproveRequest(name=name, promotion_id=promotion_id, comment=comment)
    answer = yield request(REGISTRY, "Approve", message)
    return promotion_of(answer.promotion, answer.gates)


def reject(name: str, promotion_id: int, comment: str = "") -> Flow[Promotion]:
    """End a requested promotion without the move; whoever requested it may do so, too.

    Raises NotFound; FailedPrecondition when it is settled.
    """
    message = pb.RejectRequest(name=name, promotion_id=promotion_id, comment=comment)
    return promotion_of((yield request(REGISTRY, "Reject", message)).promotion)


def promotions(
    name: str = "", state: PromotionState | str | None = None, limit: int | None = None
) -> Flow[list[Promotion]]:
    """Promotions that were requested, the newest first, at most `limit`; None: all.

    Of one model, or of all; `state` is `pending`, `promoted`, `rejected` or `void`, None: any. Raises NotFound.
    """
    wire = None if state is None else PromotionState.of(state).wire
    message = pb.ListPromotionsRequest(name=name, state=wire)
    return (
        yield from in_pages(REGISTRY, "ListPromotions", message, limit, lambda page: map(promotion_of, page.promotions))
    )
