"""The grammar: what is written is what is read, and what cannot be read is told where and why."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import SCHEMAS, any_key, conditions, orders, storable, write, write_order

from penstock_server.model.errors import InvalidFilter
from penstock_server.model.search import (
    CONDITION_LIMIT,
    DEPTH_LIMIT,
    ORDER_LIMIT,
    Query,
    parse_experiments,
    parse_models,
    parse_runs,
    parse_versions,
)
from penstock_server.model.search_tokens import TEXT_LIMIT
from penstock_server.model.search_tree import (
    And,
    Comparison,
    Entity,
    Field,
    Membership,
    Not,
    Operator,
    Or,
    Presence,
    Type,
)

NUMBERS = st.floats(allow_nan=False)
PARSERS = (parse_runs, parse_experiments, parse_models, parse_versions)


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_a_tree_written_and_read_is_the_same_tree(data: st.DataObject) -> None:
    schema, parse = data.draw(st.sampled_from(list(zip(SCHEMAS, PARSERS, strict=True))))
    where = data.draw(conditions(schema, any_key, storable, NUMBERS))
    order = data.draw(orders(schema, any_key))
    text = write(where, data)
    assert parse(text, [write_order(each, data) for each in order]) == Query(where, order), text


WORDS = [*"metrics.a params. `b` \" 'x' ' ( ) NOT AND or IS NULL IN LIKE > = != 1e9 . - status run name , ` é".split()]
WORDS += ["\\", "\0", "\ud800", "tags.\u2028"]


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join), st.lists(st.sampled_from(WORDS)).map("".join))
)
def test_any_text_is_read_or_refused(text: str) -> None:
    positions: list[int] = []
    for parse in PARSERS:
        for arguments in ((text, []), ("", [text])):
            try:
                parse(*arguments)
            except InvalidFilter as error:
                positions.append(error.position)
    assert all(0 <= position <= len(text) for position in positions)


ACC = Field(Entity.METRIC, "acc", Type.NUMBER)
LR = Field(Entity.PARAM, "lr", Type.TEXT)


def attribute(name: str, kind: Type) -> Field:
    return Field(Entity.ATTRIBUTE, name, kind)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", None),
        (" \n", None),
        ("metrics.acc > 0.9", Comparison(ACC, Operator.GT, 0.9)),
        ("metric.acc>=-1e-3", Comparison(ACC, Operator.GE, -1e-3)),
        ("METRICS.`acc` < inf", Comparison(ACC, Operator.LT, float("inf"))),
        ('metrics."a ""b" = .5', Comparison(Field(Entity.METRIC, 'a "b', Type.NUMBER), Operator.EQ, 0.5)),
        ("metrics.v/l-1:x.y != 1.", Comparison(Field(Entity.METRIC, "v/l-1:x.y", Type.NUMBER), Operator.NE, 1.0)),
        ("parameters.lr = 'it''s'", Comparison(LR, Operator.EQ, "it's")),
        ('param.lr LIKE "a%"', Comparison(LR, Operator.LIKE, "a%")),
        ("params.lr not ilike 'a_'", Comparison(LR, Operator.NOT_ILIKE, "a_")),
        ("tag.mlflow.source.name IS NOT NULL", Presence(Field(Entity.TAG, "mlflow.source.name", Type.TEXT), True)),
        ("tags.in IS NULL", Presence(Field(Entity.TAG, "in", Type.TEXT), False)),
        ("status = 'running'", Comparison(attribute("status", Type.STATUS), Operator.EQ, "RUNNING")),
        ("run.status != 'Failed'", Comparison(attribute("status", Type.STATUS), Operator.NE, "FAILED")),
        ("Run name = 'a'", Comparison(attribute("run_name", Type.TEXT), Operator.EQ, "a")),
        ("run name = 'a'", Comparison(attribute("run_name", Type.TEXT), Operator.EQ, "a")),
        ("attributes.`Run name` = 'a'", Comparison(attribute("run_name", Type.TEXT), Operator.EQ, "a")),
        ('"run name" = \'a\'', Comparison(attribute("run_name", Type.TEXT), Operator.EQ, "a")),
        ("attr.Created > 1.7e12", Comparison(attribute("start_time", Type.TIME), Operator.GT, 1_700_000_000_000)),
        ("end_time < 9007199254740993", Comparison(attribute("end_time", Type.TIME), Operator.LT, 2**53 + 1)),
        ("experiment_id IN (1, '2')", Membership(attribute("experiment_id", Type.EXPERIMENT_ID), (1, 2))),
        ("run_id IN ('A-b',)", Membership(attribute("run_id", Type.RUN_ID), ("ab",))),
        ("lifecycle_stage = 'deleted'", Comparison(attribute("lifecycle", Type.LIFECYCLE), Operator.EQ, "DELETED")),
        ("user_id NOT IN ('a', \"b\")", Membership(attribute("user_id", Type.TEXT), ("a", "b"), True)),
        ("datasets.name = 'a'", Comparison(attribute("dataset_name", Type.TEXT), Operator.EQ, "a")),
        ("Dataset.`Context` IS NULL", Presence(attribute("dataset_context", Type.TEXT), False)),
    ],
)  # fmt: skip
def test_what_a_filter_means(text: str, tree: object) -> None:
    assert parse_runs(text).where == tree


def test_not_binds_closer_than_and_and_and_closer_than_or() -> None:
    a, b, c = (Comparison(Field(Entity.METRIC, name, Type.NUMBER), Operator.EQ, 1.0) for name in "abc")
    one, two, three = (f"metrics.{name} = 1" for name in "abc")
    assert parse_runs(f"{one} OR {two} AND {three}").where == Or((a, And((b, c))))
    assert parse_runs(f"({one} OR {two}) AND {three}").where == And((Or((a, b)), c))
    assert parse_runs(f"NOT {one} AND {two} AND {three}").where == And((Not(a), b, c))
    assert parse_runs(f"NOT ({one} AND {two})").where == Not(And((a, b)))


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("metrics.a", 9, "=, !=, >, >=, <, <=, [NOT] IN or IS [NOT] NULL"),
        ("metrics.a == 1", 10, "=, !=, >, >="),
        ("metrics.a LIKE 'x'", 10, "=, !=, >, >="),
        ("params.a > '1'", 9, "=, !=, [NOT] LIKE"),
        ("metrics.a > '1'", 12, "a number"),
        ("metrics.a > nan", 12, "a number"),
        ("metrics.a > 1 2", 14, "AND, OR or the end"),
        ("metrics.a > 1 AND", 17, "metrics.<key>, params.<key>, tags.<key>, run_id"),
        ("metrics. = 1", 8, "a key right after 'metrics.'"),
        ("metrics.`` = 1", 8, "a key right after 'metrics.'"),
        ("params.a = 1", 11, "a quoted string"),
        ("params.a = `x`", 11, "a quoted string"),
        ("params.a = 'x", 11, "a closing '"),
        ("params.`a = 'x'", 7, "a closing `"),
        ("params.a LIKE 5", 14, "a quoted pattern"),
        ("params.a LIKE 'x\\'", 14, "a character after its last backslash"),
        ("params.a IN 'x'", 12, "( and a list of values"),
        ("params.a IN ()", 13, "a quoted string"),
        ("params.a IN ('x' 'y')", 17, ", or )"),
        ("params.a IS 'x'", 12, "NULL or NOT NULL"),
        ("params.a IS NOT 'x'", 16, "NULL"),
        ("params.a NOT = 'x'", 13, "IN, LIKE or ILIKE"),
        ("(metrics.a > 1", 14, "AND, OR or )"),
        ("metrics.a > 1)", 13, "AND, OR or the end"),
        ("status = 'DONE'", 9, "'RUNNING', 'SCHEDULED', 'FINISHED', 'FAILED', 'KILLED'"),
        ("start_time > 'now'", 13, "a whole number of ms"),
        ("start_time > 1.5", 13, "a whole number of ms"),
        ("start_time > 1e30", 13, "a whole number of ms"),
        ("start_time > " + "9" * 5000, 13, "a whole number of ms"),
        ("experiment_id = 'x'", 16, "an experiment id"),
        ("experiment_id LIKE '1%'", 14, "=, !=, [NOT] IN"),
        ("attributes.nothing = 1", 0, "run_name"),
        ("model.a = 1", 0, "metrics.<key>"),
        ("datasets.schema = 'x'", 0, "metrics.<key>"),
        ("datasets. = 'x'", 9, "a key right after 'datasets.'"),
        ("'status' = 'RUNNING'", 0, "metrics.<key>"),
        ("metrics.a > 1 AND artifact_uri = 'x'", 18, "artifacts are kept is the server's affair"),
        ("metrics.a > 1 # so", 14, "a name, a quoted string"),
        ("params.a = '\0'", 12, "no NUL"),
        ("params.a = '\ud800'", 12, "surrogate"),
        ("", TEXT_LIMIT, "the limit is 100000 characters"),
        ("metrics.a > 1; DROP TABLE runs", 13, "a name, a quoted string"),
    ],
)
def test_a_bad_filter_is_told_where_and_what_was_expected(text: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_runs(text or " " * (TEXT_LIMIT + 1))
    assert caught.value.position == position
    assert expected in caught.value.expected
    assert caught.value.field == "filter"


@pytest.mark.parametrize(
    ("items", "field", "position", "expected"),
    [
        (["metrics.a DESC NULLS LAST"], "order_by[0]", 15, "ASC, DESC or the end"),
        (["start_time", ""], "order_by[1]", 0, "metrics.<key>"),
        (["metrics.a", "metric.`a` DESC"], "order_by[1]", 0, "no earlier one repeats"),
        (["start_time", "created ASC"], "order_by[1]", 0, "no earlier one repeats"),
        (["metrics.a > 1"], "order_by[0]", 10, "ASC, DESC or the end"),
        (["datasets.name"], "order_by[0]", 0, "runs may have several of dataset_name"),
        ([f"metrics.m{i}" for i in range(ORDER_LIMIT + 1)], "order_by[10]", 0, "at most 10 keys"),
    ],
)
def test_a_bad_order_is_told_which_and_where(items: list[str], field: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse_runs("", items)
    assert (caught.value.field, caught.value.position) == (field, position)
    assert expected in caught.value.expected


@pytest.mark.parametrize("text", ["metrics.a > 1", "params.a = 'x'", "status = 'RUNNING'", "run name = 'x'"])
def test_experiments_have_their_own_fields(text: str) -> None:
    with pytest.raises(InvalidFilter, match=r"tags\.<key>, name, experiment_id, creation_time, last_update_time"):
        parse_experiments(text)
    with pytest.raises(InvalidFilter, match="not sorted by tags"):
        parse_experiments("", ["tags.a"])


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("version_number >= 3", Comparison(attribute("version", Type.VERSION), Operator.GE, 3)),
        ("version IN ('1', 2)", Membership(attribute("version", Type.VERSION), (1, 2))),
        ("current_stage = 'production'", Comparison(attribute("stage", Type.STAGE), Operator.EQ, "PRODUCTION")),
        ("attributes.stage != 'None'", Comparison(attribute("stage", Type.STAGE), Operator.NE, "NONE")),
        ("status = 'Ready'", Comparison(attribute("status", Type.VERSION_STATUS), Operator.EQ, "READY")),
        ("aliases = 'champion'", Comparison(attribute("alias", Type.TEXT), Operator.EQ, "champion")),
        ("source_path LIKE 's3:%'", Comparison(attribute("source_path", Type.TEXT), Operator.LIKE, "s3:%")),
        ("last_updated_timestamp < 5", Comparison(attribute("last_update_time", Type.TIME), Operator.LT, 5)),
        ("timestamp < 5", Comparison(attribute("last_update_time", Type.TIME), Operator.LT, 5)),
        ("creation_timestamp < 5", Comparison(attribute("creation_time", Type.TIME), Operator.LT, 5)),
        ("run_id IN ('A-b')", Membership(attribute("run_id", Type.RUN_ID), ("ab",))),
    ],
)
def test_what_a_filter_of_versions_means(text: str, tree: object) -> None:
    assert parse_versions(text).where == tree


@pytest.mark.parametrize(
    ("filter", "order", "position", "expected"),
    [
        ("stage = 'Live'", "name", 8, "'None', 'Staging', 'Production', 'Archived'"),
        ("status = 'RUNNING'", "name", 9, "'PENDING', 'READY', 'FAILED'"),
        ("version = 1.5", "name", 10, "a version's number"),
        ("version LIKE '1%'", "name", 8, "=, !=, >, >="),
        ("alias > 'a'", "name", 6, "=, !=, [NOT] LIKE"),
        ("metrics.a > 1", "name", 0, "tags.<key>, name, version"),
        ("", "alias", 0, "model versions may have several of alias"),
        ("", "tags.a", 0, "model versions are not sorted by tags"),
    ],
)
def test_a_bad_search_of_versions_is_told(filter: str, order: str, position: int, expected: str) -> None:  # noqa: A002
    with pytest.raises(InvalidFilter) as caught:
        parse_versions(filter, [order])
    assert caught.value.position == position
    assert expected in caught.value.expected


def test_models_have_the_fields_of_their_versions_but_no_order_by_them() -> None:
    for name in ("alias", "stage", "run_id", "source"):
        assert parse_models(f"{name} IS NULL").where
        with pytest.raises(InvalidFilter, match="registered models may have several of"):
            parse_models("", [name])
    with pytest.raises(InvalidFilter, match=r"tags\.<key>, name, description"):
        parse_models("version = 1")


def test_depth_and_number_are_bounded() -> None:
    assert parse_runs("(" * DEPTH_LIMIT + "metrics.a = 1" + ")" * DEPTH_LIMIT).where
    assert parse_runs(" AND ".join(["metrics.a = 1"] * CONDITION_LIMIT)).where
    for text in ("(" * 90_000, "NOT " * 20_000, "NOT (" * 15_000):
        with pytest.raises(InvalidFilter, match="the limit is 50"):
            parse_runs(text)
    with pytest.raises(InvalidFilter, match="the limit is 100 conditions"):
        parse_runs(" OR ".join(["metrics.a = 1"] * (CONDITION_LIMIT + 1)))
