"""Policies, requested promotions and what is said of them in PostgreSQL.

Every function works in the caller's transaction. Those that change something need the model's lock (registry.lock),
and return what has happened for registry_events.add.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from penstock_server.model.access import Caller, WorkspaceId
from penstock_server.model.errors import NotFound
from penstock_server.model.promotions import Promotion, PromotionState, Verdict, Wish, key
from penstock_server.model.registry import EventKind, Happening, ModelId, ModelRef, Policy, check_all_policies
from penstock_server.postgres.clock import NOW_MS
from penstock_server.postgres.database import Connection, Row

_POLICY = "SELECT target, gates, approvals FROM promotion_policies WHERE model_id = $1 AND target = $2"
_POLICIES_BESIDE = """
SELECT count(*), coalesce(sum(octet_length(target) + octet_length(array_to_string(gates, ''))), 0)
  FROM promotion_policies WHERE model_id = $1 AND target <> $2
"""
_PUT_POLICY = """
INSERT INTO promotion_policies (model_id, workspace_id, target, gates, approvals) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (model_id, target) DO UPDATE SET gates = excluded.gates, approvals = excluded.approvals
"""
_DROP_POLICY = "DELETE FROM promotion_policies WHERE model_id = $1 AND target = $2"


async def policy(conn: Connection, model: ModelRef, target: str) -> Policy | None:
    """What guards an alias or a stage; None when nothing does."""
    row = await conn.fetchrow(_POLICY, model.model_id, target)
    return None if row is None else Policy(row["target"], tuple(row["gates"]), row["approvals"])


async def put_policy(conn: Connection, model: ModelRef, new: Policy) -> list[Happening]:
    """Has a policy guard its target, instead of the one that does. Raises InvalidArgument when there are too many."""
    old = await policy(conn, model, new.target)
    if old == new:
        return []
    count, size = await conn.fetchrow(_POLICIES_BESIDE, model.model_id, new.target)
    check_all_policies(count + 1, size + sum(len(each.encode()) for each in (new.target, *new.gates)))
    await conn.execute(_PUT_POLICY, model.model_id, model.workspace_id, new.target, list(new.gates), new.approvals)
    before = {} if old is None else _in_words(old)
    return [Happening(EventKind.POLICY_SET, 0, key(new.target), before, _in_words(new))]


async def drop_policy(conn: Connection, model: ModelRef, target: str) -> list[Happening]:
    """Has nothing guard a target. Raises NotFound when nothing does."""
    old = await policy(conn, model, target)
    if old is None:
        raise NotFound("promotion policy", f"{model.name}{'' if target.startswith('@') else '/'}{target}")
    await conn.execute(_DROP_POLICY, model.model_id, target)
    return [Happening(EventKind.POLICY_DELETED, 0, key(target), _in_words(old))]


def _in_words(policy: Policy) -> dict[str, str]:
    return {"gates": json.dumps(policy.gates, ensure_ascii=False), "approvals": str(policy.approvals)}


_PENDING = "SELECT id FROM promotions WHERE model_id = $1 AND version = $2 AND target = $3 AND state = 1"
_ADD = f"""
INSERT INTO promotions (model_id, workspace_id, version, target, gates, archive_others, requested_by, comment,
                        created_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, {NOW_MS})
RETURNING id
"""  # noqa: S608  # only constants are put together


async def pending(conn: Connection, model: ModelRef, version: int, target: str) -> Promotion | None:
    """The one that is pending for this version and target."""
    found: int | None = await conn.fetchval(_PENDING, model.model_id, version, target)
    return None if found is None else await load_one(conn, model, found)


async def request(
    conn: Connection, caller: Caller, model: ModelRef, wish: Wish, comment: str
) -> tuple[int, list[Happening]]:
    """Requests a promotion, when none is pending for this version and target: its id."""
    made: int = await conn.fetchval(
        _ADD,
        model.model_id,
        model.workspace_id,
        wish.version,
        wish.target,
        list(wish.gates),
        wish.archive_others,
        caller.user,
        comment,
    )
    after = {"promotion_id": str(made), "comment": comment}
    return made, [Happening(EventKind.PROMOTION_REQUESTED, wish.version, key(wish.target), after=after)]


_SELECT = """
SELECT p.id, m.name, p.version, p.target, p.gates, p.archive_others, p.state, p.requested_by, p.comment,
       p.created_ms, p.settled_ms, coalesce(g.approvals, 0) AS approvals_needed
  FROM promotions p JOIN registered_models m ON m.id = p.model_id
  LEFT JOIN promotion_policies g ON g.model_id = p.model_id AND g.target = p.target
"""
_ONE = f"{_SELECT} WHERE p.workspace_id = $1 AND p.model_id = $2 AND p.id = $3"
_LIST = f"""{_SELECT}
 WHERE p.workspace_id = $1 AND ($2::bigint IS NULL OR p.model_id = $2) AND ($3::smallint IS NULL OR p.state = $3)
   AND ($4::bigint IS NULL OR p.id < $4)
 ORDER BY p.id DESC LIMIT $5
"""
_VERDICTS = """
SELECT promotion_id, given_by, approved, comment, given_ms FROM promotion_verdicts
 WHERE promotion_id = ANY($1) AND workspace_id = $2 ORDER BY given_ms, given_by
"""


async def load_one(conn: Connection, model: ModelRef, promotion_id: int) -> Promotion:
    """A promotion of this model, with what is said of it. Raises NotFound."""
    found = await _load(
        conn, model.workspace_id, await conn.fetch(_ONE, model.workspace_id, model.model_id, promotion_id)
    )
    if not found:
        raise NotFound("promotion", promotion_id)
    return found[0]


async def listed(
    conn: Connection,
    workspace_id: WorkspaceId,
    model_id: ModelId | None,
    state: PromotionState | None,
    limit: int,
    before: int | None = None,
) -> list[Promotion]:
    """Promotions of a model (None: of all) that stand so (None: however), the newest first, older than `before`."""
    return await _load(conn, workspace_id, await conn.fetch(_LIST, workspace_id, model_id, state, before, limit))


async def _load(conn: Connection, workspace_id: WorkspaceId, rows: Sequence[Row]) -> list[Promotion]:
    found = {row["id"]: _promotion(row) for row in rows}
    if found:
        for promotion_id, *verdict in await conn.fetch(_VERDICTS, list(found), workspace_id):
            found[promotion_id].verdicts.append(Verdict(*verdict))
    return list(found.values())


def _promotion(row: Row) -> Promotion:
    return Promotion(
        id=row["id"],
        wish=Wish(row["name"], row["version"], row["target"], tuple(row["gates"]), row["archive_others"]),
        state=PromotionState(row["state"]),
        requested_by=row["requested_by"],
        comment=row["comment"],
        created_ms=row["created_ms"],
        settled_ms=row["settled_ms"],
        approvals_needed=row["approvals_needed"],
    )


# Saying the same again changes nothing, and saying nothing takes no comment back.
_SAY = f"""
INSERT INTO promotion_verdicts AS old (promotion_id, workspace_id, given_by, approved, comment, given_ms)
VALUES ($1, $2, $3, $4, $5, {NOW_MS})
ON CONFLICT (promotion_id, given_by) DO UPDATE
   SET approved = excluded.approved, comment = excluded.comment, given_ms = excluded.given_ms
 WHERE old.approved <> excluded.approved OR excluded.comment NOT IN ('', old.comment)
RETURNING promotion_id
"""  # noqa: S608  # only constants are put together


async def say(
    conn: Connection, caller: Caller, promotion: Promotion, comment: str, *, approved: bool
) -> list[Happening]:
    """Records what the caller says of a promotion, instead of what they said before."""
    said = await conn.fetchval(_SAY, promotion.id, caller.workspace_id, caller.user, approved, comment)
    if said is None:
        return []
    kind = EventKind.PROMOTION_APPROVED if approved else EventKind.PROMOTION_REJECTED
    after = {"promotion_id": str(promotion.id), "comment": comment}
    return [Happening(kind, promotion.wish.version, key(promotion.wish.target), after=after)]


_SETTLE = f"""
UPDATE promotions SET state = $2, settled_ms = {NOW_MS} WHERE id = $1
"""  # noqa: S608  # only constants are put together
_VOID = f"""
UPDATE promotions SET state = {PromotionState.VOID}, settled_ms = {NOW_MS}
 WHERE model_id = $1 AND ($2::integer IS NULL OR version = $2) AND ($3::text IS NULL OR target = $3)
   AND state = {PromotionState.PENDING}
"""  # noqa: S608  # only constants are put together


async def settle(conn: Connection, promotion: Promotion, state: PromotionState) -> None:
    """Has a pending promotion stand so, for good."""
    await conn.execute(_SETTLE, promotion.id, state)


async def void(conn: Connection, model: ModelRef, version: int | None, target: str | None = None) -> None:
    """Settles what is pending for this version (None: for any) and target (None: any): there is nothing to move."""
    await conn.execute(_VOID, model.model_id, version, target)
