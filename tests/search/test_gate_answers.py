"""What a gate says of one version is what a search for its run finds, but that it needs what it compares."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from test_answers import NUMBERS, insert, keys, numbers, rows_of_runs, texts
from trees import conditions, quote, write

from penstock_server.model.access import WorkspaceId
from penstock_server.model.gates import Facts, Gate, evaluate, needed
from penstock_server.model.lifecycle import View
from penstock_server.model.runs import RunId
from penstock_server.model.search import RUNS, Query, parse_gate
from penstock_server.model.search_tree import (
    And,
    Comparison,
    Condition,
    Entity,
    Field,
    Membership,
    Not,
    Or,
    Presence,
    Reference,
)
from penstock_server.postgres.database import Database
from penstock_server.postgres.gates import run_values
from penstock_server.postgres.search import search_runs

WORKSPACE = WorkspaceId(1)

# What a run has several of decides no gate.
ONE_OF_EACH = replace(
    RUNS, attributes={name: kind for name, kind in RUNS.attributes.items() if name not in RUNS.many}, many=frozenset()
)
# Patterns meet names and statuses, too.
filters = conditions(ONE_OF_EACH, keys, texts, numbers)


def strict(where: Condition, *, negated: bool = False) -> Condition:
    """The search that finds those of which SQL's three-valued logic says that the condition is true.

    There what is missing helps nobody: below an odd number of NOTs a comparison with it has to hold.
    """
    match where:
        case And(parts):
            return And(tuple(strict(part, negated=negated) for part in parts))
        case Or(parts):
            return Or(tuple(strict(part, negated=negated) for part in parts))
        case Not(part):
            return Not(strict(part, negated=not negated))
        case Comparison() | Membership() if negated:
            return Or((where, Presence(where.field, False)))
    return where


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate])
@given(rows=rows_of_runs, asked=st.lists(filters, min_size=20, max_size=20))
def test_gates_pass_those_that_a_search_finds_and_that_have_what_decides(
    db: Database, run: Any, rows: Any, asked: Any
) -> None:
    async def check() -> None:
        async with db.connection() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                things = await insert(conn, rows)
                ids = [RunId(thing.id) for thing in things]  # type: ignore[arg-type]
                for where in asked:
                    found, _ = await search_runs(conn, WORKSPACE, None, Query(where), View.ALL, 1000, "")
                    sure, _ = await search_runs(conn, WORKSPACE, None, Query(strict(where)), View.ALL, 1000, "")
                    gate = Gate("", where)
                    fields = needed([gate])[""]
                    values = await run_values(conn, WORKSPACE, ids, fields)
                    passed = {
                        run_id for run_id in ids if evaluate(gate, Facts(1, "version 1", values[run_id]), {}).passed
                    }
                    assert passed == set(sure), where
                    whole = {run_id for run_id in ids if values[run_id].keys() >= fields}
                    assert passed & whole == set(found) & whole, where
            finally:
                await transaction.rollback()

    run(check())


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_filter_read_as_a_gate_is_the_same_tree(data: st.DataObject) -> None:
    where = data.draw(filters)
    assert parse_gate(write(where, data), "gate") == where


values = st.none() | st.sampled_from([0.0, 1.0, float("nan"), *NUMBERS])
F1 = Field(Entity.METRIC, "a", parse_gate("metrics.a = 1", "gate").field.type)  # type: ignore[union-attr]


@settings(deadline=None, max_examples=300)
@given(ours=values, theirs=values, sign=st.sampled_from(["=", "!=", ">", ">=", "<", "<="]))
def test_a_reference_compares_as_its_value_would(ours: float | None, theirs: float | None, sign: str) -> None:
    def facts(value: float | None) -> Facts:
        return Facts(1, "it", {} if value is None else {F1: value})

    gate = Gate("", parse_gate(f"metrics.a {sign} {quote('champion', '`')}.metrics.a", "gate"))
    assert gate.condition.value == Reference("@champion", F1)  # type: ignore[union-attr]
    passed = evaluate(gate, facts(ours), {"@champion": facts(theirs)}).passed
    if ours is None or theirs is None:
        assert not passed
    elif theirs != theirs:
        assert passed is (sign == "!=")
    else:
        literal = Gate("", parse_gate(f"metrics.a {sign} {theirs!r}", "gate"))
        assert passed is evaluate(literal, facts(ours), {}).passed
