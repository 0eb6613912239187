"""What an artifact's name says of what is in it."""

from __future__ import annotations

import pytest

from penstock_server.model.artifacts import media_type


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a/conf.yaml", "application/yaml"),
        ("conf.YML", "application/yaml"),
        ("README.md", "text/markdown"),
        ("t.csv", "text/csv"),
        ("t.csv.gz", "application/gzip"),
        ("t.parquet", "application/vnd.apache.parquet"),
        ("t.jsonl", "application/jsonl"),
        ("p.png", "image/png"),
        ("s.json", "application/json"),
        ("s.toml", "application/toml"),
        ("m.safetensors", "application/octet-stream"),
        ("m.onnx", "application/octet-stream"),
        ("sub/LICENSE", "text/plain"),
        ("md", "application/octet-stream"),
        ("a.md/weights", "application/octet-stream"),
        (".yaml", "application/yaml"),
    ],
)
def test_the_name_says(path: str, found: str) -> None:
    assert media_type("", path) == found
    assert media_type("text/x-mine", path) == "text/x-mine"
