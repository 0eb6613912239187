"""Pages end early rather than exceed a message, and no entry is lost or sent twice for it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.v1.experiments_pb2 import Experiment
from penstock_server.model.errors import InvalidArgument
from penstock_server.rpc import pages

ROOM = 200_000


class Shelf:
    """Entries of these sizes, given out in pages whose token is where the next one begins."""

    def __init__(self, sizes: list[int]) -> None:
        self.entries = [Experiment(experiment_id=str(n), name="x" * size) for n, size in enumerate(sizes)]
        self.asked: list[int] = []

    async def page(self, size: int, token: str) -> tuple[list[Experiment], str]:
        self.asked.append(size)
        start = int(token or 0)
        end = min(start + size, len(self.entries))
        return self.entries[start:end], str(end) if end < len(self.entries) else ""

    def read(self, size: int) -> list[list[Experiment]]:
        """All pages, page after page."""
        found, token = [], ""
        while True:
            page, token = asyncio.run(pages.fitting(self.page, size, token, ROOM))
            found.append(page)
            if not token:
                return found


@given(st.lists(st.integers(0, ROOM // 2), max_size=40), st.integers(0, 50))
def test_every_entry_comes_once_in_order_and_in_time(sizes: list[int], size: int) -> None:
    shelf = Shelf(sizes)
    found = shelf.read(size)
    assert [entry for page in found for entry in page] == shelf.entries
    for page in found:
        assert len(page) <= (size or 1_000)
        assert sum(entry.ByteSize() + 6 for entry in page) < ROOM
    assert all(found) or not sizes


def test_a_page_that_fits_is_asked_for_once() -> None:
    shelf = Shelf([100] * 50)
    assert [len(page) for page in shelf.read(0)] == [50]
    assert shelf.asked == [1_000]


def test_a_long_page_is_gathered_in_steps() -> None:
    shelf = Shelf([1] * 5_000)
    assert [len(page) for page in shelf.read(4_500)] == [4_500, 500]
    assert shelf.asked == [2_000, 2_000, 500, 2_000]


def test_an_entry_too_large_for_any_page_is_given_alone() -> None:
    # The call then fails, naming the limit, and does not turn in circles.
    shelf = Shelf([1, 2 * ROOM, 1])
    assert [len(page) for page in shelf.read(10)] == [1, 1, 1]


@pytest.mark.parametrize("size", [-1, 50_001])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument, match="page_size"):
        Shelf([1]).read(size)
