"""Where MLflow's clients find artifacts: URIs that the server hands out, and never opens."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from penstock_server.mlflow.errors import invalid
from penstock_server.model.experiments import LOCATION_LIMIT, ExperimentId
from penstock_server.model.runs import Run, format_run_id

_OURS = "mlflow-artifacts:"


def check(location: str) -> str:
    """An experiment's location as it is kept: empty for our own store. Raises MlflowError."""
    if not location or location.startswith(_OURS):
        return ""
    if location.startswith("runs:"):
        raise invalid(f"Artifact location cannot be a runs:/ URI. Given: '{location[:256]}'")
    if len(location) > LOCATION_LIMIT:
        raise invalid(f"Invalid artifact path length: artifact_location has more than {LOCATION_LIMIT} characters.")
    try:
        query, fragment = urlsplit(location)[3:]
    except ValueError as error:
        raise invalid(f"'artifact_location' is no URL: {error}.") from None
    if fragment:
        raise invalid("'artifact_location' URL can't include fragments or params.")
    if ".." in unquote(unquote(query)):
        raise invalid("'artifact_location': Invalid query string")
    return location


def of_experiment(experiment_id: ExperimentId, location: str) -> str:
    """Where an experiment's artifacts are, by the location that is kept of it."""
    return location or f"{_OURS}/{experiment_id}"


def of_run(run: Run) -> str:
    """Where a run's artifacts are."""
    return below(of_experiment(run.experiment_id, run.artifact_location), f"{format_run_id(run.id)}/artifacts")


def below(location: str, path: str) -> str:
    """What is at this path below a location, which may have a query."""
    place, mark, query = location.partition("?")
    return f"{place.rstrip('/')}/{path}{mark}{query}"
