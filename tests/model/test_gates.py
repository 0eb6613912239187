"""Gates: what they mean for one version, and the reasons that people are given."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.model.errors import InvalidArgument, InvalidFilter
from penstock_server.model.gates import (
    GATE_LIMIT,
    GATES_LIMIT,
    GATES_TEXT_LIMIT,
    Effort,
    Facts,
    GateResult,
    GateValue,
    evaluate,
    needed,
    parse_gates,
    written,
)
from penstock_server.model.like import like
from penstock_server.model.registry import check_alias
from penstock_server.model.search import parse_gate, parse_runs
from penstock_server.model.search_tree import Comparison, Entity, Field, Operator, Reference, Type, Value

F1 = Field(Entity.METRIC, "f1", Type.NUMBER)
TOP = Field(Entity.METRIC, "val/top 5", Type.NUMBER)


def field(text: str) -> Field:
    condition = parse_gate(f"{text} IS NULL", "gate")
    assert not isinstance(condition, Comparison)
    return condition.field  # type: ignore[union-attr]


def facts(number: int = 3, label: str = "", unknown: str = "", **values: Value) -> Facts:
    known = {field(name.replace("__", ".")): value for name, value in values.items()}
    return Facts(number, label or f"version {number}", known, unknown)


def result(text: str, subject: Facts, **holders: Facts | None) -> GateResult:
    [gate] = parse_gates([text])
    named = {name if name.istitle() else f"@{name}": each for name, each in holders.items()}
    return evaluate(gate, subject, named, target="@champion", model="iris")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("metrics.f1 >= champion.metrics.f1", Reference("@champion", F1)),
        ("metrics.f1 >= Champion-2.metric.f1", Reference("@Champion-2", F1)),
        ("metrics.f1 >= `2nd`.metrics.f1", Reference("@2nd", F1)),
        ("metrics.f1 >= -x.metrics.f1", Reference("@-x", F1)),
        ("metrics.f1 >= production.METRICS.f1", Reference("Production", F1)),
        ("metrics.f1 >= `@production`.metrics.f1", Reference("@production", F1)),
        ("metrics.f1 >= `@champion`.metrics.f1", Reference("@champion", F1)),
        ("metrics.f1 >= metrics.metrics.f1", Reference("@metrics", F1)),
        ("metrics.f1 >= champion.metrics.`val/top 5`", Reference("@champion", TOP)),
        ("metrics.f1 >= `champion`.metrics.\"val/top 5\"", Reference("@champion", TOP)),
        ("params.lr = champion.params.lr", Reference("@champion", Field(Entity.PARAM, "lr", Type.TEXT))),
        ("params.lr != champion.tags.a.b", Reference("@champion", Field(Entity.TAG, "a.b", Type.TEXT))),
        ("stage = Staging.attributes.stage", Reference("Staging", Field(Entity.ATTRIBUTE, "stage", Type.STAGE))),
        (
            "git_commit != champion.attributes.git_commit",
            Reference("@champion", Field(Entity.ATTRIBUTE, "git_commit", Type.TEXT)),
        ),
    ],
)  # fmt: skip
def test_a_gate_may_name_what_another_version_has(text: str, reference: Reference) -> None:
    condition = parse_gate(text, "gate")
    assert isinstance(condition, Comparison)
    assert condition.value == reference
    # As it is told is as it may be written.
    again = parse_gate(f"{written(condition.field)} {condition.operator.value} {written(reference)}", "gate")
    assert again == condition


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 0, "a condition"),
        ("  ", 0, "a condition"),
        ("metrics.f1 >= champion", 14, "a number"),
        ("metrics.f1 >= champion.f1", 14, "a field such as metrics.<key> after 'champion.'"),
        ("metrics.f1 >= champion.secrets.f1", 14, "metrics.<key>, params.<key>, tags.<key>"),
        ("metrics.f1 >= champion.params.f1", 14, "a number to compare metrics.f1 with"),
        ("params.f1 = champion.metrics.f1", 12, "a quoted string to compare params.f1 with"),
        ("metrics.f1 >= champion.metrics.", 31, "a key right after 'champion.metrics.'"),
        ("metrics.f1 >= `champion`", 24, "'.' and a field"),
        ("metrics.f1 >= `champion`.`a`", 25, "a field such as metrics.<key>"),
        ("metrics.f1 >= `a b`.metrics.f1", 14, "an alias or a stage before"),
        ("metrics.f1 >= v3.metrics.f1", 14, "an alias or a stage before"),
        ("metrics.f1 >= latest.metrics.f1", 14, "an alias or a stage before"),
        ("metrics.f1 >= None.metrics.f1", 14, "an alias or a stage before"),
        ("metrics.f1 IN (champion.metrics.f1)", 15, "a number"),
        ("params.a LIKE champion.params.a", 14, "a quoted pattern"),
        ("champion.metrics.f1 >= 0.9", 0, "metrics.<key>, params.<key>, tags.<key>"),
        ("metrics.f1 >= 0.9 AND .", 22, "metrics.<key>, params.<key>, tags.<key>"),
        ("metrics.f1 == 0.9", 11, "=, !=, >"),
    ],
)
def test_a_bad_gate_is_told_where_and_why(text: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_gate(text, "gates[1]")
    assert (caught.value.field, caught.value.position) == ("gates[1]", position)
    assert expected in caught.value.expected


WORDS = ["champion.metrics.a", "`b`", ".metrics.a", "champion.", "metrics.", "-x.tags.a", "Staging.", "x..a"]
WORDS += [*"metrics.a params.a . 'x' NOT AND ( ) IN > = 1".split()]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(WORDS)), st.sampled_from(["", " "]))
def test_any_gate_is_read_or_refused(words: list[str], between: str) -> None:
    text = between.join(["metrics.a >=", *words])
    position = 0
    try:
        parse_gate(text, "gate")
    except InvalidFilter as error:
        position = error.position
    assert 0 <= position <= len(text)


def is_alias(text: str) -> bool:
    try:
        return check_alias(text) == text
    except InvalidArgument:
        return False


@settings(deadline=None, max_examples=300)
@given(
    st.from_regex(r"[\w-]+", fullmatch=True).filter(is_alias) | st.sampled_from(["Staging", "production", "none"]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1),
    st.sampled_from([(Entity.METRIC, Type.NUMBER), (Entity.PARAM, Type.TEXT), (Entity.TAG, Type.TEXT)]),
)
def test_a_reference_as_it_is_told_is_as_it_may_be_written(alias: str, key: str, kind: tuple[Entity, Type]) -> None:
    there = Field(kind[0], key, kind[1])
    reference = Reference(f"@{alias}", there)
    assert parse_gate(f"{written(there)} = {written(reference)}", "gate") == Comparison(there, Operator.EQ, reference)


def test_references_are_of_gates_only() -> None:
    with pytest.raises(InvalidFilter):
        parse_runs("metrics.f1 >= champion.metrics.f1")
    with pytest.raises(InvalidFilter):
        parse_runs("version = 3")


def test_gates_are_bounded() -> None:
    text = "metrics.f1 >= 1"
    assert len(parse_gates([text] * GATES_LIMIT)) == GATES_LIMIT
    assert parse_gates([text.ljust(GATE_LIMIT)])
    with pytest.raises(InvalidArgument, match="51 are too many"):
        parse_gates([text] * (GATES_LIMIT + 1))
    with pytest.raises(InvalidArgument, match=r"gates\[1\]: is 1001 characters long"):
        parse_gates([text, text.ljust(GATE_LIMIT + 1)])
    with pytest.raises(InvalidArgument, match=r"gates\[0\]: must not be empty"):
        parse_gates([""])


def test_gates_are_bounded_together() -> None:
    text = "metrics.f1 >= 1".ljust(GATE_LIMIT)
    most = GATES_TEXT_LIMIT // GATE_LIMIT
    assert parse_gates([text] * most)
    with pytest.raises(InvalidArgument, match="gates: have 20,015 characters together; the limit is 20,000"):
        parse_gates([*[text] * most, text.strip()])


def test_what_like_looks_at_is_bounded_in_all_gates_of_a_promotion() -> None:
    long = facts(tags__t="a" * 100_000, tags__u="a" * 1_000, tags__v="a")
    one, wide, small = parse_gates(["tags.t LIKE '%ok%'", f"NOT tags.t ILIKE '%{'_a' * 40}b%'", "tags.u LIKE '%a'"])
    assert evaluate(one, long, {}).reason.endswith("which is NOT LIKE '%ok%'")
    told = evaluate(wide, long, {})
    assert (told.passed, told.reason) == (
        False, "tags.t has 100,000 characters, which is more than LIKE may still look at in the gates of one promotion",
    )  # fmt: skip
    effort = Effort()
    assert not evaluate(one, long, {}, effort=effort).passed
    done = 0
    while (told := evaluate(small, long, {}, effort=effort)).passed:
        done += 1
    assert done > 50
    assert told.reason.startswith("tags.u has 1,000 characters, which is more than LIKE may still look at")
    # What is short, or LIKE has nothing to do with, is evaluated still.
    others = parse_gates(["tags.v LIKE 'a'", "tags.t != 'x'", "NOT tags.gone LIKE '%'"])
    assert [evaluate(gate, long, {}, effort=effort).passed for gate in others] == [True, True, False]


def test_what_gates_need_is_known_before() -> None:
    gates = parse_gates(["metrics.f1 > champion.metrics.f1 AND tags.a = Production.tags.b", "NOT metrics.f1 IN (1)"])
    assert needed(gates) == {
        "": {field("metrics.f1"), field("tags.a")},
        "@champion": {field("metrics.f1")},
        "Production": {field("tags.b")},
    }
    assert needed([]) == {"": set()}


@pytest.mark.parametrize(
    ("text", "passed", "reason"),
    [
        ("metrics.f1 >= 0.9", True, ""),
        ("metrics.f1 > 0.95", False, "metrics.f1 is 0.95, which is not > 0.95"),
        ("metrics.f1 < -inf", False, "metrics.f1 is 0.95, which is not < -inf"),
        ("metrics.nan != 1", True, ""),
        ("metrics.nan NOT IN (1)", True, ""),
        ("metrics.nan <= inf", False, "metrics.nan is NaN, which is not <= inf"),
        ("metrics.nan = 1", False, "metrics.nan is NaN, which is != 1.0"),
        ("metrics.inf > 1e308", True, ""),
        ("metrics.gone >= 0", False, "version 3 has no metrics.gone"),
        ("metrics.gone != 0", False, "version 3 has no metrics.gone"),
        ("metrics.gone NOT IN (0)", False, "version 3 has no metrics.gone"),
        ("metrics.gone IS NULL", True, ""),
        ("metrics.gone IS NOT NULL", False, "version 3 has no metrics.gone"),
        ("metrics.f1 IS NULL", False, "metrics.f1 is 0.95"),
        ("NOT metrics.gone >= 0", False, "version 3 has no metrics.gone"),
        ("NOT NOT metrics.gone >= 0", False, "version 3 has no metrics.gone"),
        ("NOT metrics.gone NOT IN (0)", False, "version 3 has no metrics.gone"),
        ("NOT params.gone LIKE '%'", False, "version 3 has no params.gone"),
        ("NOT metrics.gone IS NOT NULL", True, ""),
        ("metrics.gone > 0 OR metrics.f1 > 0", True, ""),
        ("metrics.gone > 0 OR metrics.f1 > 1", False,
         "version 3 has no metrics.gone; metrics.f1 is 0.95, which is not > 1.0"),
        ("metrics.gone > 0 AND metrics.f1 > 0", False, "version 3 has no metrics.gone"),
        ("NOT (metrics.gone > 0 AND metrics.f1 > 1)", True, ""),
        ("NOT (metrics.gone > 0 AND metrics.f1 > 0)", False,
         "version 3 has no metrics.gone; metrics.f1 is 0.95, which is > 0.0"),
        ("NOT (metrics.gone > 0 OR metrics.f1 > 1)", False, "version 3 has no metrics.gone"),
        ("NOT metrics.f1 > 0.5", False, "metrics.f1 is 0.95, which is > 0.5"),
        ("tags.validated = 'yes'", False, "tags.validated is 'no', which is != 'yes'"),
        ("tags.validated NOT LIKE 'n%'", False, "tags.validated is 'no', which is LIKE 'n%'"),
        ("tags.validated ILIKE 'N_'", True, ""),
        ("params.lr IN ('1', '2')", False, "params.lr is '0.1', which is none of '1', '2'"),
        ("params.lr NOT IN ('0.1')", False, "params.lr is '0.1', which is one of '0.1'"),
        ("status = 'finished' AND version = 3 AND stage = 'staging'", True, ""),
        ("stage = 'Production'", False, "stage is 'STAGING', which is != 'PRODUCTION'"),
        ("metrics.f1 > 1 AND metrics.gone > 1 AND params.lr = '0.1'", False,
         "metrics.f1 is 0.95, which is not > 1.0; version 3 has no metrics.gone"),
        ("metrics.f1 > 1 OR metrics.f1 > 2", False,
         "metrics.f1 is 0.95, which is not > 1.0; metrics.f1 is 0.95, which is not > 2.0"),
        ("metrics.f1 > 1 OR params.lr = '0.1'", True, ""),
        ("NOT (metrics.f1 > 0 OR metrics.f1 > 2)", False, "metrics.f1 is 0.95, which is > 0.0"),
    ],
)  # fmt: skip
def test_what_a_gate_means(text: str, passed: bool, reason: str) -> None:
    subject = facts(
        metrics__f1=0.95,
        metrics__nan=math.nan,
        metrics__inf=math.inf,
        params__lr="0.1",
        tags__validated="no",
        status="FINISHED",
        version=3,
        stage="STAGING",
    )
    told = result(text, subject)
    assert (told.passed, told.reason) == (passed, reason)


def test_values_are_told_in_the_order_in_which_the_gate_names_them() -> None:
    subject = facts(metrics__a=1.0, metrics__b=math.nan, tags__t="x" * 1000, stage="PRODUCTION")
    text = "metrics.b > 1 AND (metrics.a <= champion.metrics.a OR tags.t = 'y') AND metrics.c > 1 AND metrics.a > 0"
    told = result(text + " AND stage = 'None'", subject, champion=facts(2, metrics__a=-math.inf))
    assert told.values == (
        GateValue("metrics.b", "NaN", 3),
        GateValue("metrics.a", "1.0", 3),
        GateValue("champion.metrics.a", "-inf", 2),
        GateValue("tags.t", "x" * 249 + "…", 3),
        GateValue("metrics.c", None, 3),
        GateValue("stage", "Production", 3),
    )
    assert not told.passed


def test_a_reference_is_compared_with() -> None:
    subject = facts(metrics__f1=0.9, params__lr="1")
    better, worse = facts(2, "version 2 (champion)", metrics__f1=0.95), facts(2, metrics__f1=0.85, params__lr="1")
    assert result("metrics.f1 >= champion.metrics.f1", subject, champion=worse).passed
    assert result("params.lr = champion.params.lr", subject, champion=worse).passed
    told = result("metrics.f1 >= champion.metrics.f1", subject, champion=better)
    assert not told.passed
    assert told.reason == ("metrics.f1 is 0.9, which is not >= champion.metrics.f1, 0.95 of version 2 (champion)")
    told = result("params.lr = champion.params.lr", subject, champion=better)
    assert (told.passed, told.reason) == (False, "version 2 (champion) has no params.lr")


@pytest.mark.parametrize("text", ["metrics.f1 >= champion.metrics.f1", "NOT metrics.f1 < champion.metrics.f1"])
def test_the_first_of_a_target_is_passed_whichever_way_the_gate_asks(text: str) -> None:
    told = result(text, facts(metrics__f1=0.1), champion=None)
    assert (told.passed, told.reason) == (True, "no version of iris was ever champion")
    assert told.values == (GateValue("metrics.f1", "0.1", 3), GateValue("champion.metrics.f1", None, 0))
    assert not result(f"{text} AND metrics.f1 > 1", facts(metrics__f1=0.1), champion=None).passed
    told = result("metrics.f1 >= champion.metrics.f1", facts(), champion=None)
    assert (told.passed, told.reason) == (False, "version 3 has no metrics.f1")


@pytest.mark.parametrize("text", ["metrics.f1 >= champoin.metrics.f1", "NOT metrics.f1 < champoin.metrics.f1"])
def test_another_that_was_never_named_fails_whichever_way_the_gate_asks(text: str) -> None:
    champion = facts(2, metrics__f1=0.05)
    for subject in (facts(metrics__f1=0.1), facts(), facts(unknown="comes from no run")):
        told = result(text, subject, champoin=None, champion=champion)
        assert (told.passed, told.reason) == (False, "no version of iris was ever champoin")
        assert told.values[1] == GateValue("champoin.metrics.f1", None, 0)
    either = f"{text} OR metrics.f1 >= champion.metrics.f1"
    assert result(either, facts(metrics__f1=0.1), champoin=None, champion=champion).passed
    told = result("params.lr = Production.params.lr", facts(params__lr="1"), Production=None)
    assert (told.passed, told.reason) == (False, "no version of iris was ever Production")


@pytest.mark.parametrize("text", ["metrics.f1 >= champion.metrics.f1", "NOT metrics.f1 < champion.metrics.f1"])
def test_what_cannot_be_known_fails_whichever_way_the_gate_asks(text: str) -> None:
    gone = facts(2, "version 2 (champion)", "comes from a run that was removed", tags__a="x")
    told = result(text, facts(metrics__f1=0.1), champion=gone)
    assert not told.passed
    assert told.reason == (
        "version 2 (champion) comes from a run that was removed, which champion.metrics.f1 would be of"
    )
    told = result(text, facts(unknown="comes from no run"), champion=facts(2, metrics__f1=0.5))
    assert (told.passed, told.reason) == (False, "version 3 comes from no run, which metrics.f1 would be of")
    for other in ("metrics.f1 IS NULL", "NOT params.a = 'x'", "status != 'FAILED'"):
        assert not result(other, facts(unknown="comes from no run")).passed
    assert result("tags.a = champion.tags.a", facts(unknown="comes from no run", tags__a="x"), champion=gone).passed
    assert result("tags.b IS NULL", facts(unknown="comes from no run")).passed


def test_run_ids_are_compared_as_ids() -> None:
    subject = facts(run_id="0" * 31 + "7")
    assert result(f"run_id = '{{{'0' * 31}7}}'", subject).passed
    assert result("run_id = '00000000-0000-0000-0000-000000000007'", subject).passed
    assert result("run_id != 'x'", subject).passed
    assert not result("run_id = 'x'", subject).passed
    assert result("run_id LIKE '%07'", subject).passed


def test_many_reasons_are_cut() -> None:
    text = " AND ".join(f"metrics.m{number:02} > 0" for number in range(50))
    assert len(result(text, facts()).reason) <= 2_000


patterns = st.text("ab%_\\A.\n").filter(lambda pattern: (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 0)


@settings(deadline=None, max_examples=500)
@given(st.text("abA.%\\\n"), patterns, st.booleans())
def test_like_is_what_a_regular_expression_says(text: str, pattern: str, any_case: bool) -> None:
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    regex = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    expected = re.fullmatch(regex, text, re.DOTALL | (re.IGNORECASE if any_case else 0)) is not None
    assert like(text, pattern, any_case=any_case) is expected


def test_like_takes_no_time_over_what_a_backtracking_matcher_would_never_end() -> None:
    assert not like("a" * 100_000, "%a" * 400 + "%b", any_case=True)
    assert like("a" * 100_000, "%a" * 400, any_case=False)
    assert like("İİ", "__", any_case=True)


def test_every_operator_has_its_way_of_saying_no() -> None:
    subject = facts(metrics__f1=1.0, tags__a="x")
    for operator in set(Operator) - {Operator.RLIKE, Operator.NOT_RLIKE}:  # which gates do not take
        text = f"tags.a {operator.value} 'x'" if "LIKE" in operator.value else f"metrics.f1 {operator.value} 1"
        told = result(f"({text}) AND NOT ({text})", subject)
        assert not told.passed
        assert "not NOT" not in told.reason
