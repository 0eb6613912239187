"""What becomes of what run.log is given."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.frames import SHAPE_LIMIT, as_step, as_time_ms, flattened, sort_out, texts
from penstock.names import key_problem
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.metrics import check_key


def logged(values: object) -> dict[str, float]:
    return {name: value for names, column in sort_out(values).frames for name, value in zip(names, column, strict=True)}


def kinds(values: object) -> list[str]:
    return [problem.kind for problem in sort_out(values).problems]


class Tensor:
    """0-d, as far as anyone can tell."""

    def __float__(self) -> float:
        return 1.5


class Broken:
    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 3 elements cannot be converted to Scalar")

    def __str__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (True, 1.0),
        (0.5, 0.5),
        (-0.0, -0.0),
        (math.inf, math.inf),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.array(2.5), 2.5),
        (Tensor(), 1.5),
    ],
)
def test_numbers_of_all_kinds_are_taken(value: object, number: float) -> None:
    assert logged({"loss": value}) == {"loss": number}


def test_nan_is_a_value() -> None:
    assert math.isnan(logged({"loss": math.nan})["loss"])


@pytest.mark.parametrize("value", ["0.5", None, 1j, [1.0], object(), Broken(), 10**400, np.array([1.0, 2.0])])
def test_what_is_no_number_is_left_out_and_the_rest_kept(value: object) -> None:
    assert logged({"bad": value, "loss": 0.5}) == {"loss": 0.5}
    assert kinds({"bad": value, "loss": 0.5}) == ["value"]


@pytest.mark.parametrize(
    "name", ["", "a\0b", "x" * 251, "a/../b", "/a", "a//b", ".", "loss(1)", "\ud800", 3, None, ("a",)]
)
def test_bad_names_are_left_out_and_the_rest_kept(name: Any) -> None:
    assert logged({name: 1.0, "loss": 0.5}) == {"loss": 0.5}
    assert kinds({name: 1.0, "loss": 0.5}) == ["name"]


@given(st.text(max_size=8) | st.text("a./ :-\0", max_size=8) | st.text(min_size=249, max_size=252))
def test_names_are_those_that_the_server_takes(name: str) -> None:
    try:
        check_key("name", name)
    except InvalidArgument:
        assert key_problem(name)
    else:
        assert key_problem(name) is None


def test_nested_dicts_are_flattened() -> None:
    assert logged({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1.0, "a/c/d": 2.0, "e": 3.0}
    assert logged({"a": {}}) == {}


nested = st.recursive(
    st.floats(allow_nan=False),
    lambda inner: st.dictionaries(st.text("ab/", max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("ab/", max_size=3), nested, max_size=4))
def test_the_quick_way_flattens_as_the_careful_one(values: dict[str, Any]) -> None:
    try:
        flat = flattened(values)
    except ValueError:
        assert {"twice", "name"} & set(kinds(values))  # or the name that comes twice is a bad one
    else:
        assert {name: value for name, value in flat.items() if key_problem(name) is None} == logged(values)


@pytest.mark.parametrize("values", [{3: 1.0}, {"a": {3: 1.0}}, {"a": {3: {"b": 1.0}}}, None, 0.5])
def test_the_quick_way_leaves_what_is_odd_to_the_careful_one(values: Any) -> None:
    with pytest.raises((TypeError, AttributeError)):
        flattened(values)


def test_a_name_that_comes_twice_is_kept_once() -> None:
    assert logged({"a/b": 1, "a": {"b": 2}}) == {"a/b": 1.0}
    assert kinds({"a/b": 1, "a": {"b": 2}}) == ["twice"]


def test_a_dict_within_itself_ends() -> None:
    values: dict[str, Any] = {"loss": 1.0}
    values["self"] = values
    assert logged(values)["loss"] == 1.0
    assert "depth" in kinds(values)


@pytest.mark.parametrize("values", [None, 0.5, "loss", [("loss", 0.5)]])
def test_what_is_no_dict_is_told(values: object) -> None:
    assert kinds(values) == ["frame"]
    assert logged(values) == {}


def test_very_many_names_make_several_frames() -> None:
    values = {f"m{i}": float(i) for i in range(2 * SHAPE_LIMIT + 1)}
    frames = sort_out(values).frames
    assert [len(names) for names, _ in frames] == [SHAPE_LIMIT, SHAPE_LIMIT, 1]
    assert logged(values) == values


def test_very_long_names_make_several_frames() -> None:
    values = {f"{i:0250}": float(i) for i in range(3_000)}
    frames = sort_out(values).frames
    assert len(frames) > 1
    assert all(sum(map(len, names)) < 1 << 19 for names, _ in frames)
    assert logged(values) == values


@pytest.mark.parametrize(
    ("given_", "step"),
    [
        (3, 3),
        (-3, -3),
        (np.int64(3), 3),
        (3.0, 3),
        (np.float32(3), 3),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        (-(2**63) - 1, None),
        (1.5, None),
        (math.nan, None),
        (math.inf, None),
        ("3x", None),
        (object(), None),
        (Broken(), None),
    ],
)
def test_steps(given_: object, step: int | None) -> None:
    assert as_step(given_) == step


@pytest.mark.parametrize(
    ("given_", "ms"),
    [
        (1.5, 1500),
        (0, 0),
        (datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC), 1_704_067_200_000),
        (-1, None),
        (1e15, None),
        (math.nan, None),
        ("now", None),
        (Broken(), None),
    ],
)
def test_times(given_: object, ms: int | None) -> None:
    assert as_time_ms(given_) == ms


def test_params_and_tags_become_text() -> None:
    good, problems = texts({"lr": 0.1, "net": {"depth": 3, "act": None}, "on": True, "none": {}}, "param")
    assert good == [("lr", "0.1"), ("net/depth", "3"), ("net/act", "None"), ("on", "True"), ("none", "{}")]
    assert problems == []


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("a\0", "x", "param key"),
        (3, "x", "param key"),
        ("a", "x" * 6_001, "param value"),
        ("a", "x\0", "param value"),
        ("a", "\ud800", "param value"),
        ("a", Broken(), "param value"),
    ],
)
def test_texts_that_cannot_be_stored_are_left_out(key: Any, value: object, kind: str) -> None:
    good, problems = texts({key: value, "lr": 1}, "param")
    assert good == [("lr", "1")]
    assert [problem.kind for problem in problems] == [kind]
