"""A search's order as SQL: columns to sort by that are never NULL, and the condition of coming after a row.

Each key of the order makes two columns, a rank (0 there, 1 NaN, 2 absent; always ascending) and the value, or
a constant where the rank says that there is none; of what is always there, the value alone. Then come the noun's own
tie-breaking columns.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model import pages
from penstock_server.model.search_tree import Entity, Order, Type
from penstock_server.postgres.search_conditions import COLUMN_TYPES, Conditions, Parameters, shown

THERE, NAN, ABSENT = range(3)

Key = pages.Key

_NOTHING = {"int8": "0", "float8": "0", "text": "''", "uuid": f"'{uuid.UUID(int=0)}'"}


@dataclass(frozen=True, slots=True)
class Column:
    """One column to sort by."""

    sql: str
    type: str
    descending: bool = False

    @property
    def direction(self) -> str:
        """As ORDER BY has it."""
        return "DESC" if self.descending else "ASC"


def nothing(type_: str) -> str:
    """What stands where there is no value."""
    return f"{_NOTHING[type_]}::{type_}"


def columns(order: Sequence[Order], conditions: Conditions) -> tuple[list[Column], str]:
    """The columns of the order's keys, and the joins that they need."""
    result: list[Column] = []
    joins: list[str] = []
    noun = conditions.noun
    for index, key in enumerate(order):
        subject, kind = key.field, COLUMN_TYPES[key.field.type]
        collate = ' COLLATE "C"' if kind == "text" else ""
        if subject.entity is Entity.ATTRIBUTE:
            value = shown(subject.type, noun.attributes[subject.key])
            if subject.key in noun.required:
                result.append(Column(f"{value}{collate}", kind, key.descending))
                continue
            rank = f"CASE WHEN {value} IS NULL THEN {ABSENT} ELSE {THERE} END"
        else:
            x = f"o{index}"
            value = f"{x}.last_value" if subject.entity is Entity.METRIC else f"{x}.value"
            rank = f"CASE WHEN {x}.{noun.owner} IS NULL THEN {ABSENT} ELSE {THERE} END"
            own = f"{x}.{noun.owner} = {noun.row}.id AND {conditions.key(subject, x)}{conditions.scope.format(x=x)}"
            joins.append(f" LEFT JOIN {noun.keyed[subject.entity]} {x} ON {own}")
        if subject.type is Type.NUMBER:
            rank = f"CASE WHEN {value} < 'NaN' THEN {THERE} WHEN {value} = 'NaN' THEN {NAN} ELSE {ABSENT} END"
            value = f"nullif({value}, 'NaN')"
        result.append(Column(rank, "int8"))
        result.append(Column(f"coalesce({value}, {nothing(kind)}){collate}", kind, key.descending))
    return result, "".join(joins)


def after(sorted_by: Sequence[Column], key: Sequence[Key], parameters: Parameters) -> str:
    """The condition of coming after the row whose columns are `key`."""
    sql = ""
    for column, value in reversed(list(zip(sorted_by, key, strict=True))):
        placeholder = f"{parameters.add(value)}::{column.type}"
        beyond = f"{column.sql} {'<' if column.descending else '>'} {placeholder}"
        sql = f"({beyond} OR ({column.sql} = {placeholder} AND {sql}))" if sql else beyond
    return sql


def entered_after(sorted_by: Sequence[Column], key: Sequence[Key], parameters: Parameters) -> str:
    """As `after`, for an order that one index has: it begins with what has the index entered in the middle."""
    first, sign = sorted_by[0], "<=" if sorted_by[0].descending else ">="
    entry = f"{first.sql} {sign} {parameters.add(key[0])}::{first.type}"
    return f"{entry} AND {after(sorted_by, key, parameters)}"


def decode(query: Sequence[object], sorted_by: Sequence[Column], token: str) -> list[Key]:
    """The columns' values in the token. Raises InvalidPageToken."""
    return pages.decode(query, token, [column.type for column in sorted_by])
