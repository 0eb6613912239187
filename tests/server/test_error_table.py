"""The table of errors is complete, and what it makes of them fits into gRPC's metadata."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from penstock_server.mlflow import errors as mlflow
from penstock_server.model import errors as model
from penstock_server.rpc import errors


def vocabulary(base: type[model.PenstockError] = model.PenstockError) -> Iterator[type[model.PenstockError]]:
    for error in base.__subclasses__():
        if error.__module__ == model.__name__:
            yield error
            yield from vocabulary(error)


@pytest.mark.parametrize("error", list(vocabulary()))
def test_every_error_has_a_row(error: type[model.PenstockError]) -> None:
    assert error in errors.STATUS


def test_the_table_has_no_row_for_what_is_not_there() -> None:
    assert set(errors.STATUS) == set(vocabulary())


def test_every_error_has_a_row_for_mlflow() -> None:
    assert set(mlflow.CODE) == set(vocabulary())
    assert set(mlflow.CODE.values()) <= set(mlflow.STATUS)


def test_no_error_is_told_as_a_bug_or_as_success() -> None:
    statuses = set(errors.STATUS.values())
    assert not statuses & {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (model.InvalidArgument("name", "is bad"), {"penstock-error": "InvalidArgument", "penstock-field": "name"}),
        (
            model.InvalidFilter("filter", "a ? b", 2, "a comparison"),
            {
                "penstock-error": "InvalidFilter",
                "penstock-field": "filter",
                "penstock-position": "2",
                "penstock-expected": "a comparison",
            },
        ),
        (model.NotFound("run", "x"), {"penstock-error": "NotFound", "penstock-kind": "run"}),
        (model.ParamChanged("k", "a", "b"), {"penstock-error": "ParamChanged", "penstock-kind": "param"}),
        (model.NotActive("run", "x"), {"penstock-error": "NotActive", "penstock-kind": "run"}),
        (model.SequenceGap(5, 9), {"penstock-error": "SequenceGap", "penstock-expected-seq": "5"}),
        (model.Busy("full", 1.5), {"penstock-error": "Busy", "retry-after-ms": "1500"}),
        (model.Fenced("w", 3, 2), {"penstock-error": "Fenced", "penstock-epoch": "3"}),
        (
            model.InvalidArgument("value of tag 'größe 100%\n'", "is bad"),
            {
                "penstock-error": "InvalidArgument",
                "penstock-field": "value of tag 'gr%C3%B6%C3%9Fe 100%25%0A'",
            },
        ),
    ],
)
def test_facts_are_metadata(error: model.PenstockError, facts: dict[str, str]) -> None:
    assert dict(errors.metadata(error)) == facts


def test_the_longest_error_fits() -> None:
    error = model.InvalidArgument("🌊" * 10_000, "🌊" * 10_000)
    # gRPC sends each byte that is not ASCII as three, and has 8 KiB for all.
    told = 3 * len(errors.sentence(error).encode()) + sum(
        len(key) + len(value) for key, value in errors.metadata(error)
    )
    assert told < 7_000
    assert errors.sentence(error).startswith("🌊🌊🌊")


def test_inside_of_a_message_an_error_is_its_number() -> None:
    assert errors.code(model.InvalidArgument("a", "b")) == 3
    assert errors.code(model.ParamChanged("a", "b", "c")) == 6
    assert errors.code(ZeroDivisionError()) == 13
