"""The fault campaigns in short: seeds fixed, a handful of faults each. `make test-faults` plays them at length."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign.ground import Ground
from campaign.program import CAMPAIGNS, play

_SEED = 20_261_121
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="penstock-test-", dir=_MEMORY if in_memory else None) as directory:
        ground = Ground(Path(directory) / "pg").start()
        try:
            yield ground
        finally:
            ground.close()


@pytest.mark.slow
@pytest.mark.timeout(400)  # longer than any wait in there, which tells more
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_what_was_logged_is_there_once(name: str, ground: Ground, tmp_path: Path) -> None:
    campaign = CAMPAIGNS[name]
    outcome = play(campaign, tmp_path / "stage", ground, _SEED, campaign.short)
    assert outcome.tally.points > 0
