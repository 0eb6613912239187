"""What searches have in common: how many are answered at once, and of which stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from penstock_server.mlflow.arguments import Arguments, integer
from penstock_server.mlflow.errors import invalid
from penstock_server.model.lifecycle import View
from penstock_server.model.pages import SIZE_LIMIT

_VIEWS = {"ACTIVE_ONLY": View.ACTIVE, "DELETED_ONLY": View.DELETED, "ALL": View.ALL}


def size(arguments: Arguments, default: int = 0, limit: int = SIZE_LIMIT) -> int:
    """How many are asked for. Raises MlflowError when it is not 1 to `limit`; 0 as a default is refused as well."""
    number = arguments.integer("max_results", default)
    if number < 1:
        raise invalid(f"Invalid value {number} for parameter 'max_results' supplied. It must be a positive integer")
    if number > limit:
        raise invalid(f"Invalid value {number} for parameter 'max_results' supplied. It must be at most {limit}")
    return number


def view(arguments: Arguments, name: str) -> View:
    """Which stages are asked for, by name or by number: the active ones unless it is said. Raises MlflowError."""
    value = arguments.get(name)
    if value is None:
        return View.ACTIVE
    if isinstance(value, str) and value in _VIEWS:
        return _VIEWS[value]
    number = integer(value)
    if number is None or number not in set(View):
        raise arguments.wrong(name, value, f"Value must be one of {', '.join(_VIEWS)}")
    return View(number)


def page(name: str, found: Iterable[Mapping[str, Any]], token: str = "") -> dict[str, Any]:
    """What a search answers: what it has found, and the next page's token, each where there is one."""
    answer: dict[str, Any] = {}
    if listed := list(found):
        answer[name] = listed
    if token:
        answer["next_page_token"] = token
    return answer
