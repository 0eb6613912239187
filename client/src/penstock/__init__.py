"""Penstock: experiment tracking that never makes training wait.

    with penstock.start_run(experiment="digits", params={"lr": 0.1}) as run:
        run.log({"loss": 0.31}, step=1)

    penstock.Client().search_runs(experiments=["digits"], order_by=["metrics.loss ASC"], limit=5)

Importing it starts nothing and loads nothing; what is used is loaded when it is first named.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock import errors
    from penstock.artifacts import Artifact
    from penstock.client import AsyncClient, Client
    from penstock.errors import PenstockError
    from penstock.experiments import Experiment, View
    from penstock.metrics import History, MetricSummary, Point, Series
    from penstock.model_versions import ModelStage, ModelVersion, ModelVersionStatus
    from penstock.promotions import (
        GateResult,
        GateValue,
        Promotion,
        PromotionPolicy,
        PromotionResult,
        PromotionState,
        Verdict,
    )
    from penstock.registry import RegisteredModel
    from penstock.registry_events import RegistryEvent
    from penstock.runs import Run, RunChanged, Runs, RunStatus
    from penstock.sender import Rejection
    from penstock.start import start_run
    from penstock.tracking import ActiveRun

__version__ = "0.1.0"

__all__ = [
    "ActiveRun",
    "Artifact",
    "AsyncClient",
    "Client",
    "Experiment",
    "GateResult",
    "GateValue",
    "History",
    "MetricSummary",
    "ModelStage",
    "ModelVersion",
    "ModelVersionStatus",
    "PenstockError",
    "Point",
    "Promotion",
    "PromotionPolicy",
    "PromotionResult",
    "PromotionState",
    "RegisteredModel",
    "RegistryEvent",
    "Rejection",
    "Run",
    "RunChanged",
    "RunStatus",
    "Runs",
    "Series",
    "Verdict",
    "View",
    "errors",
    "start_run",
]

_HOMES = {
    "ActiveRun": "tracking",
    "Artifact": "artifacts",
    "AsyncClient": "client",
    "Client": "client",
    "Experiment": "experiments",
    "GateResult": "promotions",
    "GateValue": "promotions",
    "History": "metrics",
    "MetricSummary": "metrics",
    "ModelStage": "model_versions",
    "ModelVersion": "model_versions",
    "ModelVersionStatus": "model_versions",
    "PenstockError": "errors",
    "Point": "metrics",
    "Promotion": "promotions",
    "PromotionPolicy": "promotions",
    "PromotionResult": "promotions",
    "PromotionState": "promotions",
    "RegisteredModel": "registry",
    "RegistryEvent": "registry_events",
    "Rejection": "sender",
    "Run": "runs",
    "RunChanged": "runs",
    "RunStatus": "runs",
    "Runs": "runs",
    "Series": "metrics",
    "Verdict": "promotions",
    "View": "experiments",
    "start_run": "start",
}

# gRPC reads these when it is loaded. By default it writes a line to stderr at each os.fork(), and runs handlers
# there that hang and crash (`penstock.forks` tells how).
FORKS_SAFELY = "grpc" not in sys.modules or "GRPC_ENABLE_FORK_SUPPORT" in os.environ
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
FORKS_SAFELY &= os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false").lower() in ("0", "false", "no", "off")


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"penstock.{_HOMES[name]}"), name)
    elif name == "errors":
        value = importlib.import_module("penstock.errors")
    else:
        raise AttributeError(f"module 'penstock' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
