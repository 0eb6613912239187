"""What MLflow's own server answers to random requests, ours answers too, apart from differences.py."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from asking import Asking, Told
from differential.acts import Act
from differential.answers import plain
from differential.differences import chosen
from differential.programs import AREAS, programs
from differential.sides import Side
from hypothesis import HealthCheck, Phase, given, note, settings
from stock_server import stock_server

from servers import ServerProcess

# Programs of up to 30 requests. `make test-mlflow` plays more of them.
MORE = "MLFLOW_PROGRAMS" in os.environ
PROGRAMS = int(os.environ.get("MLFLOW_PROGRAMS", "8"))
_marks = itertools.count()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    """MLflow's own server."""
    with stock_server(tmp_path_factory.mktemp("stock")) as address:
        asking = Asking(address)
        yield asking
        asking.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("area", AREAS)
def test_the_answers_are_those_of_mlflow(area: str, server: ServerProcess, stock: Asking) -> None:
    ours = Asking(server.http_address)

    @settings(
        max_examples=PROGRAMS,
        deadline=None,
        database=None,
        derandomize=not MORE,
        phases=tuple(Phase) if MORE else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(area))
    def check(acts: list[Act]) -> None:
        mark = f"p{next(_marks):05d}-"
        compare(acts, Side(stock, mark), Side(ours, mark))

    try:
        check()
    finally:
        ours.close()


def compare(acts: list[Act], stock: Side, ours: Side) -> None:
    for act in acts:
        theirs, told = stock.play(act), ours.play(act)
        while plain(stock, theirs) == plain(ours, told) and _has_more(told):
            theirs, told = stock.play_next(act, theirs), ours.play_next(act, told)
        if plain(stock, theirs) == plain(ours, told):
            continue
        note(f"{act.method} {act.path} {act.fields}")
        note(f"MLflow: {theirs.status} {theirs.body!r}")
        note(f"ours: {told.status} {told.body!r}")
        assert chosen(act, theirs, told) is not None
        if act.method != "GET" and not act.path.endswith("/search"):
            return  # from here on they have not the same


def _has_more(told: Told) -> bool:
    return told.status == 200 and isinstance(told.json, dict) and "next_page_token" in told.json
