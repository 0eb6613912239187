"""Prompts over MLflow's REST API: registered models with a tag, which searches do not show unless they ask for them."""

from __future__ import annotations

import pytest
from asking import Asking

IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
TAG = "tags.`mlflow.prompt.is_prompt`"


def prompt(ask: Asking, name: str, text: str = "Hello {{name}}") -> None:
    ask.ok("registered-models/create", name=name, tags=[IS_PROMPT])
    ask.ok(
        "model-versions/create",
        name=name,
        source="prompt-template",
        description="as committed",
        tags=[IS_PROMPT, {"key": "mlflow.prompt.text", "value": text}],
    )


def test_a_prompt_is_kept(ask: Asking) -> None:
    text = "水" * 40_000  # as many characters of three bytes as fit
    prompt(ask, "kept", text)
    ask.ok("registered-models/alias", name="kept", alias="production", version="1")
    found = ask.read("registered-models/alias", name="kept", alias="production")["model_version"]
    assert {each["key"]: each["value"] for each in found["tags"]}["mlflow.prompt.text"] == text
    assert (found["source"], found["description"], found["status"]) == ("prompt-template", "as committed", "READY")
    assert ask.read("model-versions/get-download-uri", name="kept", version="1")["artifact_uri"] == "prompt-template"
    assert IS_PROMPT in ask.read("registered-models/get", name="kept")["registered_model"]["tags"]


@pytest.mark.parametrize("source", ["s3://bucket/p", "file:///etc/passwd", "prompt-template/a"])
def test_a_prompt_has_no_source(ask: Asking, source: str) -> None:
    told = ask.post("model-versions/create", name="any", source=source, tags=[IS_PROMPT])
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


def test_a_prompt_is_no_source(ask: Asking) -> None:
    prompt(ask, "no source")
    ask.ok("registered-models/create", name="of a prompt")
    told = ask.post("model-versions/create", name="of a prompt", source="models:/no source/1")
    assert (told.status, told.code) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("", ["model"]),
        ("name LIKE '%'", ["model"]),
        (f"{TAG} = 'true'", ["prompt"]),
        (f"{TAG} = 'TRUE'", []),
        (f"{TAG} != 'false'", ["prompt"]),
        (f"{TAG} = 'false'", ["model"]),
        (f"{TAG} != 'true'", ["model"]),
        (f"{TAG} = 'false' AND name = 'model'", ["model"]),
        ("name IN ('model', 'prompt')", ["model"]),
        ("name = 'prompt'", []),
        (f"name = 'prompt' AND {TAG} = 'true'", ["prompt"]),
        (f"name = 'model' AND {TAG} = 'true'", []),
        (f"name = 'model' OR {TAG} = 'true'", ["model", "prompt"]),
        (f"NOT {TAG} = 'true'", ["model"]),
        (f"NOT ({TAG} = 'false')", []),
    ],
)
def test_searches_show_prompts_if_they_ask_for_them(ask: Asking, asked: str, found: list[str]) -> None:
    if ask.get("registered-models/get", name="prompt").status == 404:
        prompt(ask, "prompt")
        ask.ok("registered-models/create", name="model")
        ask.ok("model-versions/create", name="model", source="s3://bucket/model")
    for path, listed in (("registered-models", "registered_models"), ("model-versions", "model_versions")):
        answer = ask.read(f"{path}/search", filter=asked).get(listed, [])
        assert sorted(each["name"] for each in answer if each["name"] in ("model", "prompt")) == found
