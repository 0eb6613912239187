"""From what `run.log` is given to frames: nested dicts flattened, what cannot be stored sorted out.

This is the careful way, taken for names not seen before and for frames in which something is wrong.
Names that have been here once go straight into the buffer.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import operator
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from penstock.names import PARAM_VALUE_LIMIT, TAG_VALUE_LIMIT, key_problem, text_problem

SHAPE_LIMIT = 10_000  # names in a frame
NAMES_BYTES = 256 * 1024  # of the names of a frame; so any frame fits into any message
TIME_MS_MAX = 253_402_300_799_999  # the end of year 9999
_DEPTH_LIMIT = 32


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be stored. Each `kind` is warned of once per run; where it has a `name`, once per name."""

    kind: str
    message: str
    name: str = ""


@dataclass(slots=True)
class Sorted:
    """What of a call can be stored: frames of (names, values), and what cannot."""

    frames: list[tuple[tuple[str, ...], array[float]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def sort_out(values: object) -> Sorted:
    """The frames that `values` makes: normally one, several when the names are very many."""
    result = Sorted()
    good: dict[str, float] = {}
    for name, value in _flatten(values, result.problems):
        if why := key_problem(name):
            result.problems.append(Problem("name", f"a metric's name: {why}", name))
        elif name in good:
            told = f"metric {name!r} comes twice in one call; the first is kept"
            result.problems.append(Problem("twice", told, name))
        else:
            try:
                good[name] = array("d", [cast("float", value)])[0]  # it says what is no number
            except Exception as error:  # noqa: BLE001  whatever a foreign __float__ raises
                told = f"metric {name!r}: {type(value).__name__} is no number ({shown(error, str)})"
                result.problems.append(Problem("value", told[:500], name))
    for names in _frames_of(good):
        result.frames.append((names, array("d", [good[name] for name in names])))
    return result


def flattened(values: Mapping[str, object]) -> dict[str, object]:
    """Nested dicts flattened quickly, without a look at names and values. Raises where something needs more care."""
    flat: dict[str, object] = {}
    count = _flatten_into(flat, values, "")
    if len(flat) != count:
        raise ValueError("a name comes twice")
    return flat


def _flatten_into(flat: dict[str, object], values: Mapping[str, object], prefix: str) -> int:
    count = 0
    for key, value in values.items():
        if isinstance(value, dict):
            count += _flatten_into(flat, value, prefix + key + "/")
        else:
            flat[prefix + key] = value
            count += 1
    return count


def _flatten(values: object, problems: list[Problem], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    if not isinstance(values, Mapping):
        problems.append(Problem("frame", f"run.log takes a dict of names and numbers, not {type(values).__name__}"))
        return
    for key, value in list(values.items()):
        if not isinstance(key, str):
            problems.append(Problem("name", f"a metric's name must be text, not {type(key).__name__}"))
        elif not isinstance(value, Mapping):
            yield prefix + key, value
        elif depth == _DEPTH_LIMIT:
            problems.append(Problem("depth", f"dicts nested deeper than {_DEPTH_LIMIT} are not logged"))
        else:
            yield from _flatten(value, problems, f"{prefix}{key}/", depth + 1)


def _frames_of(good: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    names: list[str] = []
    size = 0
    for name in good:
        if len(names) == SHAPE_LIMIT or size > NAMES_BYTES:
            yield tuple(names)
            names, size = [], 0
        names.append(name)
        size += len(name.encode()) + 4
    if names:
        yield tuple(names)


def texts(values: object, kind: str, prefix: str = "", depth: int = 0) -> tuple[list[tuple[str, str]], list[Problem]]:
    """The keys and texts that params or tags (`kind`) make, nested dicts flattened, and what cannot be stored."""
    values = _as_dict(values)
    if not isinstance(values, Mapping):
        return [], [Problem(f"{kind} dict", f"{kind}s are a dict, not {type(values).__name__}")]
    limit = PARAM_VALUE_LIMIT if kind == "param" else TAG_VALUE_LIMIT
    good: list[tuple[str, str]] = []
    problems: list[Problem] = []
    for key, value in list(values.items()):
        name = prefix + key if isinstance(key, str) else key
        if isinstance(value, Mapping) and value and depth < _DEPTH_LIMIT:
            deeper, more = texts(value, kind, f"{name}/", depth + 1)
            good += deeper
            problems += more
        elif why := key_problem(name):
            problems.append(Problem(f"{kind} key", f"the key of a {kind}: {why}", shown(key)))
        else:
            try:
                text = str(value)
            except Exception as error:  # noqa: BLE001  whatever a foreign __str__ raises
                told = f"{kind} {name!r} has no text: {shown(error, str)}"
                problems.append(Problem(f"{kind} value", told[:500], name))
                continue
            if why := text_problem(text, limit):
                problems.append(Problem(f"{kind} value", f"{kind} {name!r}: {why}", name))
            else:
                good.append((name, text))
    return good, problems


def _as_dict(given: object) -> object:
    """What people keep their settings in, as a dict; anything else as it is."""
    if isinstance(given, Mapping):
        return given
    if isinstance(given, argparse.Namespace):
        return vars(given)
    if dataclasses.is_dataclass(given) and not isinstance(given, type):
        return dataclasses.asdict(given)
    return dict(given) if callable(getattr(given, "keys", None)) else given  # type: ignore[call-overload]


def shown(thing: object, how: Callable[[object], str] = repr, most: int = 60) -> str:
    """Some text for a message, whatever a foreign __repr__ or __str__ does."""
    try:
        return how(thing)[:most]
    except Exception:  # noqa: BLE001  its type says enough
        return f"<{type(thing).__name__}>"


def as_step(step: object) -> int | None:
    """`step` as int64; None when it is none: not a whole number, or beyond 64 bits."""
    try:
        whole = operator.index(step)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  it has none, or a foreign __index__ raises
        try:
            number = float(step)  # type: ignore[arg-type]
            whole = int(number)
        except Exception:  # noqa: BLE001  whatever a foreign __float__ raises; NaN and infinity
            return None
        if whole != number:
            return None
    return whole if -(2**63) <= whole < 2**63 else None


def as_time_ms(time: object) -> int | None:
    """`time`, in seconds since 1970 or a datetime, in ms; None when it is none, or not between 1970 and 9999."""
    try:
        seconds = time.timestamp() if isinstance(time, datetime.datetime) else float(time)  # type: ignore[arg-type]
        ms = round(seconds * 1000)
    except Exception:  # noqa: BLE001  whatever a foreign __float__ raises; NaN and infinity
        return None
    return ms if 0 <= ms <= TIME_MS_MAX else None
