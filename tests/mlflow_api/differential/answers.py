"""Answers without what no two servers have in common: ids, times, made-up names, tokens, words of errors."""

from __future__ import annotations

import re
from typing import Any

from asking import Told

from differential.sides import Side

# Times that the server takes itself. That there is one is compared.
_TIMES = frozenset(
    (
        *("creation_time", "last_update_time", "creation_timestamp", "last_updated_timestamp"),
        *("creation_timestamp_ms", "last_updated_timestamp_ms"),
    )
)
_UNORDERED = frozenset(
    (
        *("tags", "params", "metrics", "aliases", "latest_versions"),
        *("dataset_inputs", "model_inputs", "model_outputs", "dataset_summaries", "request_metadata"),
    )
)
_GIVEN_RUN_NAMES = ("one", "two", "r0", "r1", "")
_PLACE = re.compile(r"mlflow-artifacts:/(\d+)")


def plain(side: Side, told: Told) -> Any:
    """What can be compared with the other side's."""
    answer = told.json
    if told.status != 200:
        return told.status, answer.get("error_code") if isinstance(answer, dict) else "no JSON"
    if not isinstance(answer, dict):
        return told.status, told.body or {}  # a file; who has nothing to say may say so with no JSON at all
    return told.status, _plain(_Names(side), "", answer)


class _Names:
    """What each id of a side is called on both."""

    def __init__(self, side: Side) -> None:
        self.experiments = {
            each: f"<experiment {number}>" for number, each in enumerate(side.made.get("experiment", ()))
        }
        self.others = [
            (each, f"<{kind} {number}>")
            for kind in ("run", "logged")
            for number, each in enumerate(side.made.get(kind, ()))
        ]

    def text(self, key: str, text: str) -> str:
        if key == "experiment_id":
            return self.experiments.get(text, text)
        text = _PLACE.sub(lambda found: f"mlflow-artifacts:/{self.experiments.get(found[1], found[1])}", text)
        for each, name in self.others:
            text = text.replace(each, name)
        return text


def _plain(names: _Names, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("key") == "mlflow.runName":
            return {"key": "mlflow.runName", "value": _run_name(value["value"])}
        # A description is always told of versions here, be it empty.
        told = {name: each for name, each in value.items() if (name, each) != ("description", "")}
        return {name: _plain(names, name, each) for name, each in told.items()}
    if isinstance(value, list):
        # A run tells its user as this tag, too, whoever made it.
        found = [_plain(names, key, each) for each in value if not (key == "tags" and each["key"] == "mlflow.user")]
        return sorted(found, key=repr) if key in _UNORDERED else found
    if key in _TIMES:
        return "<time>"
    if key == "next_page_token":
        return "<token>"
    if key in ("run_name", "name") and isinstance(value, str):
        return _run_name(value) if key == "run_name" else value
    return names.text(key, value) if isinstance(value, str) else value


def _run_name(name: str) -> str:
    return name if name in _GIVEN_RUN_NAMES else "<made up>"
