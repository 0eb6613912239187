"""The promotions of RegistryService: what their messages say, to core, and back."""

from __future__ import annotations

from penstock.v1 import registry_pb2 as pb
from penstock_server.core.promotions import Promotions
from penstock_server.model.access import Caller
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.gates import GateResult
from penstock_server.model.promotions import Promotion, PromotionState, Wish, alias_target, stage_target
from penstock_server.model.registry import Policy
from penstock_server.rpc import pages
from penstock_server.rpc import registry_messages as messages

# Core is asked for this many at once: one may have 300 kB of gates and verdicts.
_STEP = 50


class PromotionMethods:
    """Those methods of penstock.v1.RegistryService that guard, promote, request and approve."""

    def __init__(self, promotions: Promotions, max_message_bytes: int) -> None:
        self._promotions = promotions
        self._max_message_bytes = max_message_bytes

    async def promote(self, caller: Caller, request: pb.PromoteRequest) -> pb.PromoteResponse:
        """Moves an alias or a stage if all gates pass."""
        expected = request.expected if request.HasField("expected") else None
        outcome = await self._promotions.promote(caller, _wish(request), expected=expected, dry_run=request.dry_run)
        return pb.PromoteResponse(
            promoted=outcome.promoted,
            gates=map(result, outcome.gates),
            version=messages.version(outcome.version),
            previous=outcome.previous,
        )

    async def set_promotion_policy(
        self, caller: Caller, request: pb.SetPromotionPolicyRequest
    ) -> pb.SetPromotionPolicyResponse:
        """Guards an alias or a stage."""
        policy = Policy(target(request.policy.target), tuple(request.policy.gates), request.policy.approvals)
        await self._promotions.set_policy(caller, request.name, policy)
        return pb.SetPromotionPolicyResponse()

    async def delete_promotion_policy(
        self, caller: Caller, request: pb.DeletePromotionPolicyRequest
    ) -> pb.DeletePromotionPolicyResponse:
        """Ends that."""
        await self._promotions.delete_policy(caller, request.name, target(request.target))
        return pb.DeletePromotionPolicyResponse()

    async def request_promotion(
        self, caller: Caller, request: pb.RequestPromotionRequest
    ) -> pb.RequestPromotionResponse:
        """Asks others to approve a promotion."""
        requested, results = await self._promotions.request(caller, _wish(request), request.comment)
        return pb.RequestPromotionResponse(promotion=promotion(requested), gates=map(result, results))

    async def approve(self, caller: Caller, request: pb.ApproveRequest) -> pb.ApproveResponse:
        """Approves one."""
        approved, results = await self._promotions.approve(caller, request.name, request.promotion_id, request.comment)
        return pb.ApproveResponse(promotion=promotion(approved), gates=map(result, results))

    async def reject(self, caller: Caller, request: pb.RejectRequest) -> pb.RejectResponse:
        """Rejects one."""
        rejected = await self._promotions.reject(caller, request.name, request.promotion_id, request.comment)
        return pb.RejectResponse(promotion=promotion(rejected))

    async def list_promotions(self, caller: Caller, request: pb.ListPromotionsRequest) -> pb.ListPromotionsResponse:
        """A page of those that were requested, as many as one message holds."""
        state = _state(request.state)

        async def page(size: int, token: str) -> tuple[list[pb.Promotion], str]:
            found, next_token = await self._promotions.list(caller, request.name, state, size, token)
            return [promotion(each) for each in found], next_token

        promotions, token = await pages.fitting(
            page, request.page_size, request.page_token, self._max_message_bytes, _STEP
        )
        return pb.ListPromotionsResponse(promotions=promotions, next_page_token=token)


def target(told: pb.PromotionTarget) -> str:
    """Where a request wants a version to be: @alias or a stage's label. Raises InvalidArgument."""
    match told.WhichOneof("target"):
        case "alias":
            return alias_target(told.alias)
        case "stage":
            return stage_target(messages.stage(told.stage, "target.stage") if told.stage else None)
    raise InvalidArgument("target", "must have an alias or a stage")


def result(found: GateResult) -> pb.GateResult:
    """What came of a gate as it goes out."""
    return pb.GateResult(
        gate=found.gate,
        passed=found.passed,
        values=[pb.GateValue(field=each.field, value=each.value, version=each.version) for each in found.values],
        reason=found.reason,
        stored=found.stored,
    )


def promotion(found: Promotion) -> pb.Promotion:
    """A promotion as it goes out."""
    return pb.Promotion(
        promotion_id=found.id,
        name=found.wish.name,
        version=found.wish.version,
        target=messages.target(found.wish.target),
        gates=found.wish.gates,
        state=found.state.value,  # type: ignore[arg-type]  # the same numbers
        requested_by=found.requested_by,
        comment=found.comment,
        create_time_ms=found.created_ms,
        settle_time_ms=found.settled_ms,
        approvals_needed=found.approvals_needed,
        verdicts=[
            pb.Verdict(by=each.by, approved=each.approved, comment=each.comment, time_ms=each.at_ms)
            for each in found.verdicts
        ],
        archive_others=found.wish.archive_others,
    )


def _wish(request: pb.PromoteRequest | pb.RequestPromotionRequest) -> Wish:
    return Wish(request.name, request.version, target(request.target), tuple(request.gates), request.archive_others)


def _state(number: int) -> PromotionState | None:
    try:
        return PromotionState(number) if number else None
    except ValueError:
        raise InvalidArgument("state", f"{number} is no state of a promotion") from None
