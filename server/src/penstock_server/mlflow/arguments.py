"""What a request says: the fields of a JSON object or of a query, read one by one by their names.

As proto3 has it in JSON: names in snake_case or camelCase, null is absent, integers as numbers or as text, NaN and
infinities as text, unknown fields ignored. A field that is not what its reader expects is refused in MLflow's words;
MLflow itself drops the rest of some such requests in silence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from penstock_server.mlflow.errors import MlflowError, invalid
from penstock_server.model.limits import INT64_MAX, INT64_MIN

_SEE = " See the API docs for more information about request parameters."
_INTEGER = re.compile(r"[+-]?\d{1,19}(\.0*)?")
_HUMP = re.compile(r"_([a-z0-9])")
_INFINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Arguments:
    """The fields of one message. Everything raises MlflowError, of code INVALID_PARAMETER_VALUE."""

    def __init__(self, fields: Mapping[str, Any], within: str = "") -> None:
        """`within` is how the message is called in those that are told of an error, such as ``metrics[3].``."""
        self._fields = fields
        self._within = within

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Any:  # as it came
        """As it came; None when it is absent."""
        value = self._fields.get(name)
        if value is None and "_" in name:
            value = self._fields.get(_HUMP.sub(lambda found: found[1].upper(), name))
        return value

    def text(self, name: str, default: str = "") -> str:
        """A text; the default when it is absent."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, value, "Value must be a string")
        return value

    def optional(self, name: str) -> str | None:
        """A text, None when it is absent."""
        return self.text(name) if name in self else None

    def required(self, name: str) -> str:
        """A text that must be there, and not be empty."""
        value = self.text(name)
        if not value:
            raise self.lacking(name)
        return value

    def integer(self, name: str, default: int = 0, *, low: int = INT64_MIN, high: int = INT64_MAX) -> int:
        """An integer within these bounds; the default when it is absent."""
        value = self.get(name)
        if value is None:
            return default
        found = integer(value)
        if found is None:
            raise self.wrong(name, value, "Value must be an integer")
        if not low <= found <= high:
            raise self.wrong(name, value, f"Value must be within {low} to {high}")
        return found

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false; the default when it is absent."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self.wrong(name, value, "Value must be a boolean")
        return value

    def texts(self, name: str) -> list[str]:
        """Texts; none when the field is absent."""
        values = self._list(name)
        for value in values:
            if not isinstance(value, str):
                raise self.wrong(name, value, "Value must be a list of strings")
        return values

    def messages(self, name: str) -> Iterator[Arguments]:
        """Messages; none when the field is absent."""
        for index, value in enumerate(self._list(name)):
            if not isinstance(value, dict):
                raise self.wrong(name, value, "Value must be a list of objects")
            yield Arguments(value, f"{self._within}{name}[{index}].")

    def message(self, name: str) -> Arguments | None:
        """A message, None when it is absent."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, value, "Value must be an object")
        return Arguments(value, f"{self._within}{name}.")

    def pairs(self, name: str, key: str = "key", value: str = "value") -> dict[str, str]:
        """Tags and the like, a list of messages with a key and a value: of two with one key the last."""
        return {each.required(key): each.text(value) for each in self.messages(name)}

    def lacking(self, name: str) -> MlflowError:
        """The error of a field that must be there."""
        return invalid(f"Missing value for required parameter '{self._within}{name}'.{_SEE}")

    def wrong(self, name: str, value: object, why: str) -> MlflowError:
        """The error of a field that cannot be what it is."""
        shown = orjson.dumps(value, default=str).decode()
        shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
        return invalid(f"Invalid value {shown} for parameter '{self._within}{name}' supplied: {why}.{_SEE}")

    def _list(self, name: str) -> list[Any]:
        value = self.get(name)
        if value is None:
            return []
        return value if isinstance(value, list) else [value]  # of a query that has it once


def integer(value: object) -> int | None:
    """What JSON or a query has as an integer; None when it is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value.partition(".")[0])
    return None


def number(value: object) -> float | None:
    """What JSON has as a double, NaN and infinities as text; None when it is none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, str) and value.isascii() and "_" not in value:  # which Python takes
        try:
            return _INFINITE[value] if value in _INFINITE else float(value)
        except ValueError:
            return None
    return None
