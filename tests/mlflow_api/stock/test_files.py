"""Artifacts of runs: what is logged, listed, read and downloaded."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import matplotlib.figure
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from PIL import Image
from requests import HTTPError

MIB = 1 << 20


def listed(client: MlflowClient, run_id: str, path: str | None = None) -> dict[str, tuple[bool, int | None]]:
    return {found.path: (found.is_dir, found.file_size) for found in client.list_artifacts(run_id, path)}


def test_what_is_made_of_objects(client: MlflowClient) -> None:
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2, 3])
    pixels = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    with mlflow.start_run() as run:
        assert mlflow.get_artifact_uri().startswith(("mlflow-artifacts:/", "penstock://"))
        mlflow.log_text("some text: ä", "notes/text.txt")
        mlflow.log_dict({"a": [1, 2]}, "dict.json")
        mlflow.log_dict({"a": {"b": None}}, "dict.yaml")
        mlflow.log_figure(figure, "figures/plot.png")
        mlflow.log_image(pixels, "image.png")
        for step in (0, 1):
            mlflow.log_image(Image.fromarray(pixels), key="samples", step=step)
        mlflow.log_table({"question": ["a", "b"], "score": [0.5, 1.0]}, artifact_file="answers.json")
        mlflow.log_table(pd.DataFrame({"question": ["c"], "score": [2.0]}), artifact_file="answers.json")
        uri = run.info.artifact_uri
    run_id = run.info.run_id
    names = {"notes", "dict.json", "dict.yaml", "figures", "image.png", "images", "answers.json"}
    assert set(listed(client, run_id)) == names
    assert listed(client, run_id, "notes") == {"notes/text.txt": (False, 13)}
    assert listed(client, run_id, "notes/text.txt") == {}
    assert len(listed(client, run_id, "images")) == 4
    assert mlflow.artifacts.load_text(f"{uri}/notes/text.txt") == "some text: ä"
    assert mlflow.artifacts.load_dict(f"runs:/{run_id}/dict.json") == {"a": [1, 2]}
    assert np.array_equal(np.asarray(mlflow.artifacts.load_image(f"{uri}/image.png")), pixels)
    table = mlflow.load_table("answers.json", run_ids=[run_id])
    assert list(table["question"]) == ["a", "b", "c"]
    assert json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])[0]["path"] == "answers.json"


def test_a_directory(client: MlflowClient, tmp_path: Path) -> None:
    rng = random.Random(1)
    files = {
        name: rng.randbytes(size)
        for name, size in {
            "README": 0,
            "a/one.bin": 10,
            "a/deep/er/two.bin": 70_000,
            "a/deep/größe (1).txt": 5,
            "b/with space & more+.csv": 300,
            "b/100%.txt": 7,
        }.items()
    }
    for name, data in files.items():
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_bytes(data)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path / "from"), "data")
        mlflow.log_artifact(str(tmp_path / "from" / "a" / "one.bin"), "single")
    run_id = run.info.run_id
    assert listed(client, run_id) == {"data": (True, None), "single": (True, None)}
    assert listed(client, run_id, "data/a") == {"data/a/one.bin": (False, 10), "data/a/deep": (True, None)}
    assert listed(client, run_id, "data/b")["data/b/100%.txt"] == (False, 7)
    there = Path(
        mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="data", dst_path=str(tmp_path / "to"))
    )
    assert {str(file.relative_to(there)): file.read_bytes() for file in there.rglob("*") if file.is_file()} == files
    one = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/single/one.bin")
    assert Path(one).read_bytes() == files["a/one.bin"]
    everything = Path(client.download_artifacts(run_id, "", str(tmp_path)))
    assert (everything / "data" / "a" / "deep" / "er" / "two.bin").read_bytes() == files["a/deep/er/two.bin"]
    assert [found.path for found in mlflow.artifacts.list_artifacts(run_id=run_id, artifact_path="single")] == [
        "single/one.bin"
    ]


def test_a_file_is_replaced_and_removed(client: MlflowClient) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("first, and longer", "dir/a.txt")
        mlflow.log_text("second", "dir/a.txt")
        mlflow.log_text("other", "dir/b.txt")
    uri = run.info.artifact_uri
    assert mlflow.artifacts.load_text(f"{uri}/dir/a.txt") == "second"
    repository = get_artifact_repository(uri)
    repository.delete_artifacts("dir/a.txt")
    assert listed(client, run.info.run_id, "dir") == {"dir/b.txt": (False, 5)}
    repository.delete_artifacts("dir")
    assert listed(client, run.info.run_id) == {}


def test_neither_a_file_nor_a_directory_gives_way(client: MlflowClient, tmp_path: Path) -> None:
    """A file where there is a directory, and one below a file: both are refused, and nothing is lost."""
    for name in ("one/dir", "below/dir/a.txt/b.txt", "onto/dir"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("other")
    with mlflow.start_run() as run:
        mlflow.log_text("first", "dir/a.txt")
        with pytest.raises((MlflowException, HTTPError)):
            mlflow.log_artifact(str(tmp_path / "one" / "dir"))
        with pytest.raises((MlflowException, HTTPError)):
            mlflow.log_artifacts(str(tmp_path / "onto"))
        with pytest.raises((MlflowException, HTTPError)):
            mlflow.log_artifact(str(tmp_path / "one" / "dir"), "dir/a.txt")
        with pytest.raises((MlflowException, HTTPError)):
            mlflow.log_artifacts(str(tmp_path / "below"))
    run_id = run.info.run_id
    assert listed(client, run_id) == {"dir": (True, None)}
    assert listed(client, run_id, "dir") == {"dir/a.txt": (False, 5)}
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/dir/a.txt") == "first"


def test_what_is_not_there(client: MlflowClient, tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text("some", "there.txt")
    assert listed(client, run.info.run_id, "not/there") == {}
    with pytest.raises(MlflowException):
        mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="not/there.txt")
    with pytest.raises((MlflowException, HTTPError)):
        client.list_artifacts(run.info.run_id, "../..")
    with mlflow.start_run() as empty:
        pass
    assert listed(client, empty.info.run_id) == {}


def test_a_large_file(client: MlflowClient, tmp_path: Path) -> None:
    block = random.Random(2).randbytes(MIB)
    large = tmp_path / "large.bin"
    digest = hashlib.sha256()
    with large.open("wb") as file:
        for number in range(80):
            part = number.to_bytes(8, "little") + block
            file.write(part)
            digest.update(part)
    size = large.stat().st_size
    with mlflow.start_run() as run:
        mlflow.log_artifact(str(large), "checkpoints")
    large.unlink()
    assert listed(client, run.info.run_id, "checkpoints") == {"checkpoints/large.bin": (False, size)}
    found = mlflow.artifacts.download_artifacts(
        f"runs:/{run.info.run_id}/checkpoints/large.bin", dst_path=str(tmp_path)
    )
    with Path(found).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
