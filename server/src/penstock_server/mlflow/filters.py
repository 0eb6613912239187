"""Searches of runs and experiments as MLflow's clients write them, as what core searches by.

The grammar is one. What MLflow has as tags only, and runs have as columns too (run_texts.py), is looked for in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstock_server.mlflow import run_texts
from penstock_server.model import search
from penstock_server.model.search_schemas import RUNS
from penstock_server.model.search_tree import (
    And,
    Comparison,
    Condition,
    Entity,
    Field,
    Membership,
    Not,
    Or,
    Order,
    Presence,
    Query,
)

# As MLflow has them where nothing is said.
_NEWEST_EXPERIMENTS = ("creation_time DESC", "experiment_id ASC")


def _attribute(name: str) -> Field:
    return Field(Entity.ATTRIBUTE, name, RUNS.attributes[name])


_NAME = _attribute("run_name")
_COLUMNS = {
    run_texts.PARENT: _attribute("parent_run_id"),
    run_texts.USER: _attribute("user_id"),
    run_texts.SOURCE: _attribute("source_name"),
    run_texts.COMMIT: _attribute("git_commit"),
}


def runs(arguments_filter: str, order_by: Sequence[str]) -> Query:
    """A search of runs. Raises InvalidFilter."""
    query = search.parse_mlflow_runs(arguments_filter, order_by)
    where = None if query.where is None else _with_columns(query.where)
    return Query(where, _orders(query.order))


def experiments(arguments_filter: str, order_by: Sequence[str]) -> Query:
    """A search of experiments. Raises InvalidFilter."""
    return search.parse_experiments(arguments_filter, order_by or _NEWEST_EXPERIMENTS)


def _orders(order: Sequence[Order]) -> tuple[Order, ...]:
    """Of two that come to be one the first."""
    found: dict[Field, Order] = {}
    for key in order:
        named = replace(key, field=_NAME) if _is_tag(key.field, run_texts.RUN_NAME) else key
        found.setdefault(named.field, named)
    return tuple(found.values())


def _with_columns(condition: Condition) -> Condition:
    match condition:
        case Not(part):
            return Not(_with_columns(part))
        case And(parts):
            return And(tuple(map(_with_columns, parts)))
        case Or(parts):
            return Or(tuple(map(_with_columns, parts)))
        case Comparison(subject) | Membership(subject) | Presence(subject):
            if _is_tag(subject, run_texts.RUN_NAME):
                return replace(condition, field=_NAME)
            column = _COLUMNS.get(subject.key) if subject.entity is Entity.TAG else None
            return condition if column is None else _either(condition, column)


def _either(leaf: Comparison | Membership | Presence, column: Field) -> Condition:
    """What `leaf` says of a tag that is shown, from the column where it is not kept as a tag."""
    of_column = replace(leaf, field=column)
    if isinstance(leaf, Presence):
        return Or((leaf, of_column)) if leaf.present else And((leaf, of_column))
    return Or((leaf, And((Presence(leaf.field, present=False), of_column))))


def _is_tag(field: Field, key: str) -> bool:
    return field.entity is Entity.TAG and field.key == key
