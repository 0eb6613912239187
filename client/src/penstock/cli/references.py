"""Runs as they are typed: by id, or by so much of its beginning that it can be no other."""

from __future__ import annotations

import re
from collections.abc import Iterable

from penstock.client import Client
from penstock.experiments import View
from penstock.run_ids import parse_run_id

_LEAST = 6
_BEGINNING = re.compile(rf"[0-9a-f]{{{_LEAST},31}}")
_SHOWN = 5


def run_id(client: Client, text: str) -> str:
    """The id of a run, deleted ones too. Raises ValueError; a whole id is not looked up."""
    beginning = beginning_of(text)
    if not beginning:
        return whole(text)
    found = client.search_runs(filter=f"run_id LIKE '{beginning}%'", view=View.ALL, info_only=True, limit=_SHOWN + 1)
    return only(text, {run.id: run.name for run in found})


def whole(text: str) -> str:
    """A whole id. Raises ValueError."""
    try:
        return parse_run_id(text)
    except ValueError as error:
        raise ValueError(f"{error}, nor the first {_LEAST} or more of one") from None


def run_ids(client: Client, texts: Iterable[str]) -> list[str]:
    """As `run_id`, of several."""
    return [run_id(client, text) for text in texts]


def beginning_of(text: str) -> str:
    """What a run's id is to begin with, in its own digits; empty where this is none, or all of one."""
    digits = text.lower().replace("-", "")
    return digits if _BEGINNING.fullmatch(digits) else ""


def only(text: str, found: dict[str, str]) -> str:
    """The one that was found; names by ids. Raises ValueError where that is none, or several."""
    if not found:
        raise ValueError(f"no run's id begins with {text!r}")
    if len(found) > 1:
        told = [f"{each} ({name})" if name else each for each, name in found.items()]
        more = ", …" if len(told) > _SHOWN else ""
        raise ValueError(f"{text!r} begins the ids of several runs: {', '.join(told[:_SHOWN])}{more}; type more of it")
    return next(iter(found))
