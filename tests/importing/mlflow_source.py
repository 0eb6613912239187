"""Makes what is imported: python mlflow_source.py <tracking URI> [<directory of files>], with whichever MLflow."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.tracking import MlflowClient

uri, *rest = sys.argv[1:]
mlflow.set_tracking_uri(uri)
client = MlflowClient(uri, uri)
location = Path(rest[0]).as_uri() if rest else None
vision = client.create_experiment("vision", location, {"team": "a"})
run = client.create_run(vision, 1_700_000_000_000, {"mlflow.user": "ann", "x": "1"}, "first").info.run_id
points = [Metric("loss", 1 / (step + 1), 1_700_000_000_000 + step * 10, step) for step in range(300)]
points += [Metric("nan", math.nan, 1_700_000_000_001, 0), Metric("late", 2.0, 1_700_000_000_009, 5)]
points += [Metric("late", 3.0, 1_700_000_000_001, 7)]
client.log_batch(run, points, [Param("lr", "0.1")])
dataset = Dataset("d", "abc", "local", "{}")
client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "train")])])
client.log_text(run, "weights", "model/weights.txt")
client.log_text(run, "", "empty.txt")
client.set_terminated(run, "FINISHED", 1_700_000_009_000)
deleted = client.create_run(vision, 1_700_000_001_000, {"mlflow.parentRunId": run}).info.run_id
client.log_text(deleted, "deleted", "a file.txt")
client.delete_run(deleted)
gone = client.create_experiment("gone")
client.create_run(gone)
client.delete_experiment(gone)
name = f"net{mlflow.__version__.partition('.')[0]}"
client.create_registered_model(name, {"k": "v"}, "words")
files = client.get_run(run).info.artifact_uri
for number in range(3):
    client.create_model_version(name, f"{files}/model", run, tags={"n": str(number)})
client.delete_model_version(name, "2")
client.set_registered_model_alias(name, "champion", "3")
client.transition_model_version_stage(name, "1", "Production")
logged = None
if hasattr(client, "create_logged_model"):
    model = client.create_logged_model(vision, "lm", run, {"a": "b"}, {"p": "1"})
    logged = model.model_id
    weights = Path("weights.bin")
    weights.write_bytes(b"bits")
    client.log_model_artifact(logged, str(weights))
    client.finalize_logged_model(logged, "READY")
    client.log_metric(run, "acc", 0.5, model_id=logged, timestamp=1_700_000_000_500)
    client.create_model_version(name, f"models:/{logged}", run, model_id=logged)
    client.register_prompt("greeting", "hi {{x}}")
print(json.dumps({"run": run, "deleted": deleted, "logged": logged, "name": name}))
