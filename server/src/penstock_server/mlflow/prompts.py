"""Prompts: what MLflow keeps as registered models with a tag, and does not show to whoever looks for models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock_server.mlflow.errors import invalid
from penstock_server.model import search
from penstock_server.model.search_tree import (
    And,
    Comparison,
    Condition,
    Entity,
    Field,
    Membership,
    Not,
    Operator,
    Or,
    Presence,
    Query,
    Type,
)

_TAG = Field(Entity.TAG, "mlflow.prompt.is_prompt", Type.TEXT)
_IS_ONE = Comparison(_TAG, Operator.EQ, "true")
# A version must have a source; a prompt has none, and clients send one of these.
_SOURCES = ("dummy-source", "prompt-template")


def is_one(tags: Mapping[str, str]) -> bool:
    """Whether a model or version with these tags is a prompt."""
    return tags.get(_TAG.key, "").lower() == "true"


def check_source(source: str) -> str:
    """What stands for the source of a prompt. Raises MlflowError."""
    if source not in _SOURCES:
        raise invalid(f"Invalid prompt source: '{source[:256]}'. Prompt sources must use an MLflow placeholder.")
    return source


def models(filter_text: str, order_by: Sequence[str]) -> Query:
    """A search of models as MLflow's clients write it, as what core searches by. Raises InvalidFilter."""
    return _without(search.parse_models(filter_text, order_by))


def versions(filter_text: str, order_by: Sequence[str]) -> Query:
    """A search of versions as MLflow's clients write it, as what core searches by. Raises InvalidFilter."""
    return _without(search.parse_versions(filter_text, order_by))


def _without(query: Query) -> Query:
    """Without prompts, unless it asks for them: the tag is 'true', or is not 'false'.

    Whatever else it says of the tag means what is no prompt, which has no such tag.
    """
    where, asks = (None, False) if query.where is None else _read(query.where)
    if asks:
        return replace(query, where=where)
    none = Not(_IS_ONE)
    return replace(query, where=none if where is None else And((where, none)))


def _read(condition: Condition) -> tuple[Condition, bool]:
    """The condition without other words for what is no prompt, and whether it asks for prompts."""
    match condition:
        case And(parts) | Or(parts):
            read = [_read(part) for part in parts]
            return type(condition)(tuple(part for part, _ in read)), any(asks for _, asks in read)
        case Not(part):
            inner, asks = _read(part)
            return Not(inner), asks
        case Comparison(subject, operator, value) if subject == _TAG:
            asks = (operator, str(value).lower()) in ((Operator.EQ, "true"), (Operator.NE, "false"))
            return (condition, True) if asks else (Not(_IS_ONE), False)
        case Comparison() | Membership() | Presence():
            return condition, False
