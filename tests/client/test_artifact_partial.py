"""The file that a download is written to until it is whole, where files can be locked and where they cannot."""

from __future__ import annotations

import errno
import hashlib
import threading
from pathlib import Path

import pytest

from penstock import partial
from penstock.partial import Partial

RANGE = 1000
OLD, NEW = bytes(range(250)) * 10, bytes(reversed(range(250))) * 10


def begin(target: Path, data: bytes) -> Partial:
    return Partial(target, len(data), hashlib.sha256(data).digest(), RANGE)


def fill(part: Partial, data: bytes) -> None:
    for number in range(len(part.done)):
        part.write(number, data[number * RANGE :][: part.length(number)])


@pytest.fixture(params=["refused", "none"])
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks")

    if request.param == "refused":
        monkeypatch.setattr(partial.fcntl, "flock", flock)
    else:
        monkeypatch.setattr(partial, "_LOCKS", False)


def test_without_locks_nobody_writes_to_the_file_of_another(tmp_path: Path, without_locks: None) -> None:
    target = tmp_path / "a.bin"
    with begin(target, OLD) as first:
        fill(first, OLD)
        assert first.digest() == hashlib.sha256(OLD).digest()
        with begin(target, NEW) as second:  # the artifact was replaced meanwhile
            second.write(0, NEW[:RANGE])
            first.finish()
            assert target.read_bytes() == OLD
            second.write(1, NEW[RANGE : RANGE + 10])
        assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]  # what nobody goes on with is not left


def test_with_locks_the_next_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with begin(target, OLD) as first:
        first.write(1, OLD[RANGE : RANGE + 700])
        with begin(target, OLD) as beside:
            assert beside.done == [0, 0, 0]
            fill(beside, OLD)
            beside.finish()
    with begin(target, OLD) as again:
        assert again.done == [0, 700, 0]
        again.write(1, OLD[RANGE + 700 : 2 * RANGE])
        again.write(0, OLD[:RANGE])
        again.write(2, OLD[2 * RANGE :])
        assert again.digest() == hashlib.sha256(OLD).digest()
        again.finish()
    assert target.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [target]


def test_it_is_not_closed_while_a_thread_writes(tmp_path: Path) -> None:
    part = begin(tmp_path / "a.bin", OLD)
    with part._lock:
        closing = threading.Thread(target=part.__exit__)
        closing.start()
        assert not part._file.closed
        closing.join(0.05)
        assert not part._file.closed
    closing.join(10)
    with pytest.raises(ValueError, match="closed"):
        part.write(0, b"late")
