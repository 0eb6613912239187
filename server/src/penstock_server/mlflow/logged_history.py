"""Models that a run of MLflow 1 and 2 has logged: a list of them in JSON, which is one of its tags."""

from __future__ import annotations

from typing import Any

import orjson

from penstock_server.mlflow import json_texts
from penstock_server.mlflow.errors import invalid
from penstock_server.model.runs import TAG_VALUE_LIMIT

MODELS_TAG = "mlflow.log-model.history"

_REQUIRED = ("artifact_path", "flavors", "utc_time_created", "run_id")
_KEPT = ("run_id", "artifact_path", "utc_time_created", "model_uuid")


def read(model_json: str) -> dict[str, Any]:
    """What is kept of a model, of what its MLmodel file says. Raises MlflowError."""
    try:
        model = json_texts.read(model_json)
    except ValueError:
        raise invalid(f"Malformed model info. \n {model_json[:1000]} \n is not a valid JSON.") from None
    if not isinstance(model, dict) or not isinstance(model.get("flavors"), dict | None):
        raise invalid("Malformed model info: neither a model nor its flavors can be anything but an object.")
    lacking = [name for name in _REQUIRED if name not in model]
    if lacking:
        raise invalid(f"Model json is missing mandatory fields: {', '.join(lacking)}")
    flavors = {
        name: {key: value for key, value in flavor.items() if key != "config"} if isinstance(flavor, dict) else flavor
        for name, flavor in (model["flavors"] or {}).items()
    }
    return {**{name: model[name] for name in _KEPT if name in model}, "flavors": flavors}


def with_another(history: str | None, model: dict[str, Any]) -> str:
    """The tag with one more model. The oldest make room where they would not fit. Raises MlflowError."""
    try:
        found = json_texts.read(history or "[]")
    except ValueError:
        found = []
    models = [*(found if isinstance(found, list) else []), model]
    while models:
        text = orjson.dumps(models).decode()
        if len(text) <= TAG_VALUE_LIMIT:
            return text
        del models[0]
    raise invalid(f"The model's info has more than {TAG_VALUE_LIMIT} characters.")
