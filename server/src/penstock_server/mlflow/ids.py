"""Ids as MLflow's clients write them, and what they are told where there is nothing of that id."""

from __future__ import annotations

import re
import uuid

from penstock_server.mlflow.arguments import Arguments
from penstock_server.mlflow.errors import invalid, missing
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.limits import INT64_MAX
from penstock_server.model.runs import RunId

_RUN = re.compile("[0-9a-f]{32}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,100}")


def run_id(arguments: Arguments) -> RunId:
    """The run that a request is about: `run_id`, or `run_uuid` of old clients. Raises MlflowError."""
    return parse_run_id(arguments.text("run_id") or arguments.text("run_uuid") or arguments.required("run_id"))


def parse_run_id(text: str) -> RunId:
    """A run's id; any text is one in MLflow, so that what cannot be one of ours is one that is not there."""
    if not _RUN.fullmatch(text):
        raise missing(f"Run with id={text[:256]} not found")
    return RunId(uuid.UUID(text))


def experiment_id(arguments: Arguments) -> ExperimentId:
    """The experiment that a request is about. Raises MlflowError."""
    number = _number(arguments.required("experiment_id"))
    if not 0 <= number <= INT64_MAX:
        raise missing(f"No Experiment with id={number} exists")
    return ExperimentId(number)


def experiment_ids(arguments: Arguments) -> list[ExperimentId]:
    """The experiments that are searched, but those that there can be none of. Raises MlflowError."""
    numbers = map(_number, arguments.texts("experiment_ids"))
    return [ExperimentId(number) for number in numbers if 0 <= number <= INT64_MAX]


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise invalid(f"Invalid experiment ID '{text[:256]}'. Experiment ID must be a valid integer.")
    return int(text)
