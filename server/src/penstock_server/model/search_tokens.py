"""The words of the search grammar: text into tokens, each with the place where it stands."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

from penstock_server.model.errors import InvalidFilter

TEXT_LIMIT = 100_000  # characters: an IN list of some 2,700 run ids


class Kind(enum.Enum):
    """What a token is."""

    NAME = "a name"
    QUOTED_NAME = "a name in backticks"
    STRING = "a quoted string"
    NUMBER = "a number"
    OPERATOR = "an operator"
    PUNCTUATION = "punctuation"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """A word and what it stands for: `value` is without quotes. Positions are 0-based, in characters."""

    kind: Kind
    text: str
    value: str
    start: int
    end: int


# A name takes in the characters that keys may have and that no operator begins with, so that
# metrics.val/loss and tags.mlflow.source.name need no quotes.
_TOKEN = re.compile(
    r"""
      (?P<SPACE>\s+)
    | (?P<NUMBER>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
    | (?P<NAME>[+-]?[^\W\d][\w./:\-]*)
    | (?P<STRING>'[^']*(?:''[^']*)*' | "[^"]*(?:""[^"]*)*")
    | (?P<QUOTED_NAME>`[^`]*(?:``[^`]*)*`)
    | (?P<OPERATOR>[<>=!]+)
    | (?P<PUNCTUATION>[(),.])
    """,
    re.VERBOSE,
)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def tokens(field: str, text: str) -> Iterator[Token]:
    """The tokens of `text`, the last one of kind END. Raises InvalidFilter, of the request's `field`."""
    if len(text) > TEXT_LIMIT:
        raise InvalidFilter(field, text, TEXT_LIMIT, f"the end: the limit is {TEXT_LIMIT} characters")
    if bad := _UNSTORABLE.search(text):
        raise InvalidFilter(field, text, bad.start(), "no NUL characters and no halves of surrogate pairs")
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise InvalidFilter(field, text, position, _closing(text[position]))
        position = match.end()
        if match.lastgroup and match.lastgroup != "SPACE":
            kind = Kind[match.lastgroup]
            yield Token(kind, match.group(), _value(kind, match.group()), match.start(), position)
    yield Token(Kind.END, "", "", position, position)


def _value(kind: Kind, text: str) -> str:
    if kind not in (Kind.STRING, Kind.QUOTED_NAME):
        return text
    quote = text[0]
    return text[1:-1].replace(quote * 2, quote)


def _closing(character: str) -> str:
    if character in "'\"`":
        return f"a closing {character} for this one"
    return "a name, a quoted string, a number or an operator"
