"""The use cases of promotion: policies, moves by gates, and those that others must approve."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from penstock_server.model import pages
from penstock_server.model.access import Caller
from penstock_server.model.errors import (
    FailedPrecondition,
    Guarded,
    InvalidArgument,
    PermissionDenied,
)
from penstock_server.model.gates import Effort, Gate, GateResult, evaluate, needed, parse_gates
from penstock_server.model.promotions import (
    VERDICTS_LIMIT,
    Outcome,
    Promotion,
    PromotionState,
    Wish,
    check_comment,
    check_policy,
    in_words,
    key,
    where_to,
)
from penstock_server.model.registry import (
    EventKind,
    Happening,
    ModelRef,
    ModelVersion,
    Policy,
    Stage,
    VersionStatus,
    check_name,
    check_version,
)
from penstock_server.postgres import gates as gate_values
from penstock_server.postgres import model_versions, promotions, registry, registry_events
from penstock_server.postgres.database import Connection, Database


class Promotions:
    """Guards aliases and stages, and moves them. Everything may raise InvalidArgument, NotFound and Unavailable.

    What is guarded moves nowhere else; what decides is read, and the move made, under the model's lock.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def promote(
        self, caller: Caller, wish: Wish, *, expected: int | None = None, dry_run: bool = False
    ) -> Outcome:
        """Moves an alias or a stage to a version if all gates pass; a dry run only looks.

        Raises FailedPrecondition when the version is not ready, Guarded when the policy asks for approvals, which a
        dry run does without, InvalidFilter of `gates[i]`, and AliasMoved when the alias does not name `expected`
        (0: none; None: whatever it names).
        """
        own = _check(wish)
        to = where_to(wish.target)
        if expected is not None and isinstance(to, Stage):
            raise InvalidArgument("expected", "goes with an alias, not with a stage")
        if expected:
            check_version(expected, "expected")
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, wish.name)
            version = await _ready(conn, model, wish.version)
            policy = await promotions.policy(conn, model, wish.target)
            if policy is not None and policy.approvals and not dry_run:
                raise Guarded(wish.name, wish.target, policy.approvals)
            previous = 0
            if not isinstance(to, Stage):
                previous = await model_versions.named(conn, model, to, expected)
            results = await _evaluate(conn, model, version, policy, wish.target, own)
            passed = all(each.passed for each in results)
            if passed and not dry_run:
                happened = await _move(conn, caller, model, version, wish, results)
                if happened:  # else nothing changes, what is pending no more than the rest: the history would not tell
                    await promotions.void(conn, model, wish.version, wish.target)
                await registry_events.add(conn, caller, model.model_id, wish.name, happened)
                version = await model_versions.load_one(conn, model, wish.version)
        return Outcome(passed, results, version, previous)

    async def set_policy(self, caller: Caller, name: str, policy: Policy) -> None:
        """Has a policy guard an alias or a stage, instead of the one that does. What is pending needs it at once.

        Raises InvalidFilter of `gates[i]`.
        """
        check_name(name)
        check_policy(policy)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            happened = await promotions.put_policy(conn, model, policy)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def delete_policy(self, caller: Caller, name: str, target: str) -> None:
        """Has nothing guard an alias or a stage."""
        check_name(name)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            happened = await promotions.drop_policy(conn, model, target)
            await registry_events.add(conn, caller, model.model_id, name, happened)

    async def request(self, caller: Caller, wish: Wish, comment: str = "") -> tuple[Promotion, list[GateResult]]:
        """Asks others to approve a promotion; what its gates say now. The same from the same caller is asked once.

        Raises FailedPrecondition when another is pending for this version and target, when the version is not ready or
        the policy asks for no approvals, InvalidFilter of `gates[i]`.
        """
        own = _check(wish)
        check_comment(comment)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, wish.name)
            version = await _ready(conn, model, wish.version)
            policy = await promotions.policy(conn, model, wish.target)
            if policy is None or not policy.approvals:
                raise FailedPrecondition(f"{wish.target} of {wish.name!r} needs no approvals: use promote()")
            promotion = await promotions.pending(conn, model, wish.version, wish.target)
            if promotion is None:
                promotion_id, happened = await promotions.request(conn, caller, model, wish, comment)
                await registry_events.add(conn, caller, model.model_id, wish.name, happened)
                promotion = await promotions.load_one(conn, model, promotion_id)
            elif (promotion.requested_by, promotion.wish) != (caller.user, wish):
                raise FailedPrecondition(
                    f"{promotion.requested_by} has requested {wish.target} for version {wish.version} of {wish.name!r}"
                    f" already: promotion {promotion.id} is pending; approve it, or reject it and request anew"
                )
            return promotion, await _evaluate(conn, model, version, policy, wish.target, own)

    async def approve(
        self, caller: Caller, name: str, promotion_id: int, comment: str = ""
    ) -> tuple[Promotion, list[GateResult]]:
        """Approves what another has requested; promotes it when that is enough and all gates pass.

        The results of the gates, once there are enough approvals. Approving again tries again.
        Raises FailedPrecondition when it is settled or its version is not ready, PermissionDenied to whoever requested
        it.
        """
        check_name(name)
        check_comment(comment)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            promotion = await _pending(conn, model, promotion_id)
            if promotion.requested_by == caller.user:
                raise PermissionDenied(
                    f"{caller.user} requested promotion {promotion_id}: somebody else must approve it"
                )
            version = await _ready(conn, model, promotion.wish.version)
            known = {verdict.by for verdict in promotion.verdicts}
            if caller.user not in known and len(known) >= VERDICTS_LIMIT:
                raise FailedPrecondition(f"{len(known)} have had their say in promotion {promotion_id} already")
            happened = await promotions.say(conn, caller, promotion, comment, approved=True)
            promotion = await promotions.load_one(conn, model, promotion_id)
            results: list[GateResult] = []
            wish = promotion.wish
            if promotion.approvals >= promotion.approvals_needed:
                policy = await promotions.policy(conn, model, wish.target)
                results = await _evaluate(conn, model, version, policy, wish.target, parse_gates(wish.gates))
                if all(each.passed for each in results):
                    happened += await _move(conn, caller, model, version, wish, results, promotion_id)
                    await promotions.settle(conn, promotion, PromotionState.PROMOTED)
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return await promotions.load_one(conn, model, promotion_id), results

    async def reject(self, caller: Caller, name: str, promotion_id: int, comment: str = "") -> Promotion:
        """Ends a requested promotion without the move. Raises FailedPrecondition when it is settled."""
        check_name(name)
        check_comment(comment)
        async with self._db.waiting() as conn:
            model = await registry.lock(conn, caller.workspace_id, name)
            promotion = await _pending(conn, model, promotion_id)
            happened = await promotions.say(conn, caller, promotion, comment, approved=False)
            await promotions.settle(conn, promotion, PromotionState.REJECTED)
            await registry_events.add(conn, caller, model.model_id, name, happened)
            return await promotions.load_one(conn, model, promotion_id)

    async def list(
        self,
        caller: Caller,
        name: str = "",
        state: PromotionState | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> tuple[list[Promotion], str]:
        """One page, the newest first, and the next's token. Raises InvalidPageToken.

        Of a model ("": of all), those that stand so (None: however).
        """
        if name:
            check_name(name)
        limit = pages.check_size(page_size)
        query = ("promotions", caller.workspace_id, name, state)
        before = pages.decode_id(query, page_token) if page_token else None
        async with self._db.transaction(snapshot=True, read_only=True) as conn:
            model = await registry.locate(conn, caller.workspace_id, name) if name else None
            model_id = model.model_id if model else None
            found = await promotions.listed(conn, caller.workspace_id, model_id, state, limit + 1, before)
        token = pages.encode(query, [found[limit - 1].id]) if len(found) > limit else ""
        return found[:limit], token


def _check(wish: Wish) -> list[Gate]:
    """Its gates."""
    check_name(wish.name)
    check_version(wish.version)
    if wish.archive_others and where_to(wish.target) not in (Stage.STAGING, Stage.PRODUCTION):
        raise InvalidArgument("archive_others", f"goes with Staging and Production, not with {wish.target}")
    return parse_gates(wish.gates)


async def _pending(conn: Connection, model: ModelRef, promotion_id: int) -> Promotion:
    promotion = await promotions.load_one(conn, model, promotion_id)
    if promotion.state is not PromotionState.PENDING:
        raise FailedPrecondition(f"promotion {promotion_id} is settled: it is {promotion.state.name.lower()}")
    return promotion


_NOT_READY = {
    VersionStatus.PENDING: "is pending: its bytes are not there yet",
    VersionStatus.FAILED: "has failed: its bytes will not come",
}


async def _ready(conn: Connection, model: ModelRef, number: int) -> ModelVersion:
    """A version whose bytes are there. Raises NotFound; FailedPrecondition while they are not."""
    version = await model_versions.load_one(conn, model, number)
    if version.status is not VersionStatus.READY:
        raise FailedPrecondition(f"{model.name} version {number} {_NOT_READY[version.status]}")
    if version.source_problem:
        raise FailedPrecondition(f"{model.name} version {number} has no bytes: {version.source_problem}")
    return version


async def _evaluate(
    conn: Connection,
    model: ModelRef,
    version: ModelVersion,
    policy: Policy | None,
    target: str,
    own: Sequence[Gate],
) -> list[GateResult]:
    """What comes of the policy's gates, then of those of one's own."""
    gates = [*(_stored(model, policy) if policy else ()), *own]
    subject, holders = await gate_values.facts(conn, model, version, needed(gates))
    effort = Effort()
    # In a thread: patterns made for it take some hundredths of a second over long tags.
    return await asyncio.to_thread(
        lambda: [evaluate(gate, subject, holders, target=target, model=model.name, effort=effort) for gate in gates]
    )


def _stored(model: ModelRef, policy: Policy) -> list[Gate]:
    """A policy's gates. Raises FailedPrecondition when this release does not read what another has taken."""
    try:
        return parse_gates(policy.gates, stored=True)
    except InvalidArgument as error:
        raise FailedPrecondition(
            f"the policy of {policy.target} of {model.name!r} must be set again: {error}"
        ) from error


async def _move(
    conn: Connection,
    caller: Caller,
    model: ModelRef,
    version: ModelVersion,
    wish: Wish,
    results: Sequence[GateResult],
    promotion_id: int | None = None,
) -> list[Happening]:
    """Moves the alias or the stage. That it is there already is an event only where it was requested."""
    to = where_to(wish.target)
    if isinstance(to, Stage):
        moved = await model_versions.move_stage(
            conn, model, version, to, archive_others=wish.archive_others, key="promoted"
        )
    else:
        _, moved = await model_versions.move_alias(conn, caller, model, to, version)
    if not moved and promotion_id is None:
        return []
    after = {"gates": json.dumps(in_words(results), ensure_ascii=False)}
    if promotion_id is not None:
        after = {"promotion_id": str(promotion_id), **after}
    return [*moved, Happening(EventKind.PROMOTED, wish.version, key(wish.target), after=after)]
