"""What the registry's texts may be, and what references mean."""

from __future__ import annotations

import uuid

import pytest

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.promotions import key
from penstock_server.model.registry import (
    Ref,
    Stage,
    VersionStatus,
    check_alias,
    check_name,
    check_source,
    check_tags,
    check_version,
    parse_ref,
    parse_run_source,
    run_source,
)
from penstock_server.model.runs import RunId

RUN = RunId(uuid.UUID("0190a0a0-0000-7000-8000-000000000001"))


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("models:/iris/3", Ref("iris", version=3)),
        ("iris/3", Ref("iris", version=3)),
        ("iris/2147483647", Ref("iris", version=2**31 - 1)),
        ("iris/007", Ref("iris", version=7)),
        ("iris/000000000030", Ref("iris", version=30)),
        ("iris/000000000301", Ref("iris", version=301)),
        ("models:/iris/Production", Ref("iris", stage=Stage.PRODUCTION)),
        ("iris/staging", Ref("iris", stage=Stage.STAGING)),
        ("iris/None", Ref("iris", stage=Stage.NONE)),
        ("models:/iris/latest", Ref("iris")),
        ("iris/LATEST", Ref("iris")),
        ("models:/iris@champion", Ref("iris", alias="champion")),
        ("iris@champion", Ref("iris", alias="champion")),
        ("iris@Production", Ref("iris", alias="Production")),
        ("a@b@champion", Ref("a@b", alias="champion")),
        ("a@b/3", Ref("a@b", version=3)),
        ("Größe 1/3", Ref("Größe 1", version=3)),
        ("3/3", Ref("3", version=3)),
        (f"{'x' * 256}@{'y' * 255}", Ref("x" * 256, alias="y" * 255)),
    ],
)
def test_references(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iris",
        "models:/",
        "models:/iris",
        "iris/",
        "iris/0",
        "iris/-1",
        "iris/2147483648",
        "iris/99999999999999999999",
        "iris/٣",
        "iris/1.0",
        "iris/v3",
        "iris/champion",
        "iris/3/4",
        "/3",
        "@champion",
        "iris@",
        "iris@3",
        "iris@latest",
        "runs:/iris/3",
        "models://iris/3",
        f"{'x' * 257}/3",
        "x" * 1_000,
        "iris\0/3",
    ],
)
def test_what_names_no_version(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^ref: "):
        parse_ref(text)


def test_a_run_is_a_source() -> None:
    for path in ("", "model", "model/weights.pt", "ü/ß"):
        source = run_source(RUN, path)
        assert parse_run_source(source) == (RUN, path)
    assert run_source(RUN, "") == f"runs:/{RUN.hex}"
    assert parse_run_source(f"runs:/{RUN}/model/") == (RUN, "model")


@pytest.mark.parametrize(
    "rest", ["", "nope", "nope/model", f"/{RUN.hex}/model", f"{RUN.hex}//model", f"{RUN.hex}/../a"]
)
def test_what_is_no_source_of_a_run(rest: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^source: "):
        parse_run_source(f"runs:/{rest}")


def test_names_say_what_is_wrong_with_them() -> None:
    assert check_name("x" * 256)
    for name, problem in (
        ("", "name: must not be empty"),
        (" \t", "name: must not be blank"),
        ("a\nb", r"name: 'a\nb' has a control character at position 1"),
        ("iris\x1b[31m", r"name: 'iris\x1b[31m' has a control character at position 4"),
        ("\u202eevil", r"name: '\u202eevil' has a control character at position 0"),
        ("..", "name: '..' means a directory wherever a name becomes that of a file"),
        ("a/b", "name: 'a/b' has a / in it, which references such as models:/name/3 need"),
        ("x" * 257, "name: is 257 characters long; the limit is 256"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            check_name(name)
        assert str(caught.value) == problem


def test_versions_begin_with_one() -> None:
    assert check_version(1) == 1
    for version in (0, -1, 2**31):
        with pytest.raises(InvalidArgument, match=r"^version: "):
            check_version(version)


def test_aliases_are_never_taken_for_versions() -> None:
    for alias in ("champion", "v", "1st", "v1-rc", "_", "größe", "None", "staging", "Production", "archived"):
        assert parse_ref(f"iris@{check_alias(alias)}").alias == alias
    for alias in ("3", "v3", "V3", "٣", "latest", "Latest", "a b", "a.b", "a/b", ""):
        with pytest.raises(InvalidArgument, match=r"^alias: "):
            check_alias(alias)
    with pytest.raises(InvalidArgument, match="the limit is 255"):
        check_alias("x" * 256)


def test_the_history_tells_an_alias_from_a_stage_of_that_name() -> None:
    assert [key(target) for target in ("@champion", "@production", "@Production", "Production")] == [
        "champion",
        "production",
        "@Production",
        "Production",
    ]


def test_sources_are_text_of_one_line() -> None:
    assert check_source("s3://bucket/ü")
    for source in ("", " ", "a\nb", "a\x7fb", "a\x85b", "x" * 5_001):
        with pytest.raises(InvalidArgument, match=r"^source: "):
            check_source(source)


def test_tags_have_limits() -> None:
    assert check_tags({"x" * 250: "y" * 100_000, "empty": ""})
    for tags in ({"": ""}, {"x" * 251: ""}, {"a": "y" * 100_001}, {"a": "\0"}, {"\ud800": ""}):
        with pytest.raises(InvalidArgument):
            check_tags(tags)


def test_labels() -> None:
    assert [stage.label for stage in Stage] == ["None", "Staging", "Production", "Archived"]
    assert [status.label for status in VersionStatus] == ["pending", "ready", "failed"]
    assert Stage.called("PRODUCTION") is Stage.PRODUCTION
    assert Stage.called("nope") is None
