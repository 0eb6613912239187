"""The differences that are meant. docs/mlflow.md tells users of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asking import Told

from differential.acts import Act

# Of the act, the stock server's answer, ours.
Holds = Callable[[Act, Told, Told], bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that we do otherwise. `why` is a sentence of docs/mlflow.md."""

    why: str
    holds: Holds


def _refused(told: Told) -> bool:
    return 400 <= told.status < 500


def _said(told: Told, *words: str) -> bool:
    return all(word in told.body.decode(errors="replace") for word in words)


# What a 404 says there is nothing of.
_NOBODY = re.compile(r"(?:id=|ID '|name=|version=)([^ ',)]+)")
_TWICE = ("tags.", "experiment_tags.", "input_tags.", "logged_model_params.", "logged_model_tags.")


def _two_mistakes(stock: Told, ours: Told) -> bool:
    """Whether one tells that something is not there, and the other of something else that cannot be."""
    absent, impossible = (ours, stock) if ours.status == 404 else (stock, ours)
    if (absent.status, impossible.status) != (404, 400) or not _said(impossible, "INVALID_PARAMETER_VALUE"):
        return False
    named = _NOBODY.findall(absent.body.decode())
    return bool(named) and not any(_said(impossible, name) for name in named)


def _trace_ids(told: Told) -> list[str]:
    return [each["trace_id"] for each in told.json.get("traces", ())]


CHOSEN = [
    Difference(
        "What a caller did wrong is told with a status of 400 to 499, where MLflow has some as 500.",
        lambda _, stock, ours: stock.status == 500 and _refused(ours),
    ),
    Difference(
        "What MLflow's database refuses is `BAD_REQUEST` there, with its SQL; here it is checked before, and is "
        "`INVALID_PARAMETER_VALUE`.",
        lambda _, stock, ours: stock.status == 400 == ours.status and _said(stock, "IntegrityError"),
    ),
    Difference(
        "Of several tags or params of one key in one call the last one holds; MLflow's database refuses them.",
        lambda act, stock, ours: (
            ours.status == 200 and any(_said(stock, f"UNIQUE constraint failed: {table}") for table in _TWICE)
        ),
    ),
    Difference(
        "Of two mistakes in one request either may be told: 404 that something is not there, 400 that something "
        "cannot be.",
        lambda _, stock, ours: _two_mistakes(stock, ours),
    ),
    Difference(
        "An empty name, id or key is refused, where MLflow stores blanks.",
        lambda _, stock, ours: (stock.status, ours.status) == (200, 400) and _said(ours, "must not be empty"),
    ),
    Difference(
        "The last page of traces has no token, be it full; MLflow gives one, for a page that is empty.",
        lambda act, stock, ours: (
            act.path.endswith("/traces/search")
            and stock.status == 200 == ours.status
            and "next_page_token" in stock.json
            and "next_page_token" not in ours.json
            and _trace_ids(stock) == _trace_ids(ours)
        ),
    ),
    Difference(
        "The location of a trace needs no `type`.",
        lambda act, stock, ours: (
            "/traces" in act.path and ours.status == 200 and _said(stock, "TRACE_LOCATION_TYPE_UNSPECIFIED")
        ),
    ),
    Difference(
        "A list of files tells the size of empty ones, too.",
        lambda act, stock, ours: (
            "artifacts" in act.path and _said(ours, '"file_size":0') and not _said(stock, '"file_size": 0')
        ),
    ),
    Difference(
        "Files belong to a run, a logged model or a trace: other paths of the store are empty, and are not written to.",
        lambda act, stock, ours: act.path.endswith("/artifacts") and "path" not in act.fields and ours.json == {},
    ),
    Difference(
        'Errors about files are in MLflow\'s JSON, too, where MLflow has `{"detail": …}` or HTML in places.',
        lambda act, stock, ours: (
            stock.status == ours.status >= 400 and not _said(stock, '"error_code"') and _said(ours, '"error_code"')
        ),
    ),
    Difference(
        "An order has at most 10 keys, none twice.",
        lambda act, stock, ours: act.path.endswith("/search") and _said(ours, "a key that no earlier one repeats"),
    ),
    Difference(
        "Aliases are shown wherever a version is; MLflow leaves them out where there are several.",
        lambda act, stock, ours: (
            act.path.startswith(("registered-models/", "model-versions/"))
            and stock.status == 200 == ours.status
            and stock.body.count(b'"aliases"') < ours.body.count(b'"aliases"')
        ),
    ),
    Difference(
        "An output that a run has already is no error.",
        lambda act, stock, ours: (
            act.path == "runs/outputs" and ours.status == 200 and _said(stock, "UNIQUE constraint")
        ),
    ),
    Difference(
        "A field that has the wrong type, or is missing within a list, is refused, before what the request names is "
        "looked for; MLflow drops some such in silence.",
        lambda _, stock, ours: ours.status == 400 and _said(ours, "for more information about request parameters"),
    ),
    Difference(
        "The id of a logged model is read from the path; the body need not have it again.",
        lambda act, stock, ours: (
            "{logged}" in act.path and _said(stock, "Missing value for required parameter 'model_id'")
        ),
    ),
    Difference(
        "A `max_results` below 1 is refused by every search.",
        lambda act, stock, ours: act.path.endswith("/search") and _said(ours, "must be a positive integer"),
    ),
    Difference(
        "A name that is none of an enumeration's is refused; MLflow takes some such for the default, in silence.",
        lambda _, stock, ours: ours.status == 400 and _said(ours, "Value must be one of"),
    ),
    Difference(
        "The keys of tags are checked by `runs/create`, too.",
        lambda act, stock, ours: (
            act.path == "runs/create" and (stock.status, ours.status) == (200, 400) and _said(ours, "tag key: ")
        ),
    ),
    Difference(
        "A status of an end sets `end_time` where there is none; any other takes it away.",
        lambda act, stock, ours: (
            act.path == "runs/update"
            and stock.status == 200 == ours.status
            and _said(stock, '"end_time"') != _said(ours, '"end_time"')
        ),
    ),
    Difference(
        "A text that can be no run's id is that of a run that is not there, 404; MLflow has 400 in places.",
        lambda act, stock, ours: (
            ours.status == 404 and _said(ours, "Run with id=") and _said(stock, "for parameter 'run_id'")
        ),
    ),
    Difference(
        "A tag of an unknown trace is 404; MLflow's database refuses it.",
        lambda act, stock, ours: (
            act.path.endswith("{trace}/tags") and ours.status == 404 and _said(stock, "FOREIGN KEY constraint")
        ),
    ),
    Difference(
        "Times are 0 to the end of year 9999, in ms.",
        lambda _, stock, ours: ours.status == 400 and _said(ours, "is not a time in ms since 1970"),
    ),
    Difference(
        "Names that are too long are refused by every endpoint that takes or looks for one.",
        lambda _, stock, ours: ours.status == 400 and _said(ours, "characters long; the limit is"),
    ),
    Difference(
        "Searches of versions are ordered by `timestamp`, too, as those of registered models are.",
        lambda act, stock, ours: (
            act.path == "model-versions/search" and _said(stock, "Invalid attribute key 'timestamp'")
        ),
    ),
]


def chosen(act: Act, stock: Told, ours: Told) -> Difference | None:
    """The difference that explains these two answers, None when none does."""
    return next((each for each in CHOSEN if each.holds(act, stock, ours)), None)
