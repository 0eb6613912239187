"""Where spools are kept, and for how long: the root, the directories in it, what is left behind, what is done with.

    <root>/<run id>.<writer id>/      a spool: `*.log`, `epoch-<N>`, and `sent` once all of it is acknowledged
    <root>/.gone-…                    one that is being removed

Only what bears these names is ever removed, and no link is followed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock import address
from penstock.spool import owner
from penstock.spool.segments import SUFFIX

# How long what is sent is kept, for a server that is restored from a backup, and how much of it.
GRACE_SECONDS = 24 * 3600.0
KEEP_BYTES = 1 << 30

SENT = "sent"
_SENT_DRAFT = ".sent-"
_TRIAL = ".trial-"
_GONE = ".gone-"
_SPOOL = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{32}")
_YOUNG_SECONDS = 3600.0  # a spool without segments may be one that is just being made


class NoPlace(OSError):
    """There is no directory for spools; the sentence says why, and what to do."""


def root(given: str | os.PathLike[str] | None = None) -> Path:
    """The directory that spools are kept in, made if need be. Raises NoPlace.

    `given`, or PENSTOCK_SPOOL_DIR: it is that or none. Else the user's own, or where there is no home to write to,
    one among the temporary files. It belongs to us and nobody else writes into it; in one that is shared (a scratch
    disk, say, or a volume of a container) we have one of our own, `penstock-<user's number>`.
    """
    told = given or address.spool_dir()
    if told is not None:
        try:
            place = Path(told).expanduser().absolute()
        except RuntimeError as error:  # `~` of somebody who has no home
            raise NoPlace(f"{told}: {error}; set PENSTOCK_SPOOL_DIR to another") from None
        return _usable(_in_shared(place), "set PENSTOCK_SPOOL_DIR to another")
    home = _home()
    try:
        if home is not None:
            return _usable(home, "")
    except NoPlace:
        pass  # a home that is read-only, or somebody else's
    return _usable(_temporary(), "set PENSTOCK_SPOOL_DIR to a directory that can be written to")


def roots(given: str | os.PathLike[str] | None = None) -> list[Path]:
    """All directories that `root` may have answered, now or before, as far as they are there. Makes none."""
    told = given or address.spool_dir()
    if told is not None:
        try:
            place = Path(told).expanduser().absolute()
        except RuntimeError:
            return []
        places = [place, place / _own()]
    else:
        places = [each for each in (_home(), _temporary()) if each is not None]
    return [each for each in places if _is_ours(each)]


def place_of(root: Path, run_id: str, writer_id: bytes) -> Path:
    """The directory of a writer's spool. To be claimed before its first segment is made: then nobody else finds it."""
    return root / f"{uuid.UUID(run_id).hex}.{writer_id.hex()}"


def ids_of(directory: Path) -> tuple[str, bytes]:
    """The run and the writer that a spool belongs to, by its name."""
    run_id, _, writer_id = directory.name.partition(".")
    return run_id, bytes.fromhex(writer_id)


def found(root: Path) -> list[Path]:
    """All spools, in no order that means anything. Raises OSError."""
    with os.scandir(root) as entries:
        return [root / each.name for each in entries if _SPOOL.fullmatch(each.name) and _is_directory(each)]


def orphans(root: Path) -> Iterator[Path]:
    """Spools that are not sent and that nobody alive owns, the oldest first. Raises OSError at the start."""
    unsent = [each for each in found(root) if not is_sent(each)]
    for _, directory in sorted((begun, each) for each in unsent if (begun := _begun(each)) is not None):
        with suppress(OSError):  # swept away meanwhile, or not for us to read
            if not is_sent(directory) and owner.orphaned(directory):
                yield directory


@dataclass(frozen=True, slots=True)
class Contents:
    """What a spool takes up."""

    segments: int
    size: int
    written: float  # when, in seconds since 1970; of a spool without segments, when it was made


def contents(directory: Path) -> Contents:
    """Of a spool as it is now. Raises OSError."""
    statuses = list(_segments(directory))
    written = max((each.st_mtime for each in statuses), default=None)
    return Contents(
        segments=len(statuses),
        size=sum(each.st_size for each in statuses),
        written=directory.stat().st_mtime if written is None else written,
    )


def mark_sent(directory: Path, acked: int) -> None:
    """All of it, to record `acked` and the end, is acknowledged. Raises OSError.

    Does nothing while its writer lives and has lost it to us by force: that may write more.
    """
    if owner.contested(directory):
        return
    draft = directory / f"{_SENT_DRAFT}{os.getpid()}-{os.urandom(6).hex()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        try:
            # Not to the disk at once: a spool that loses its mark is sent again, and nothing of it is stored twice.
            os.write(descriptor, json.dumps({"acked": acked, "at": time.time()}).encode())
        except OSError as error:
            if error.errno not in owner.NO_ROOM:  # being there says enough, and makes room
                raise
        finally:
            os.close(descriptor)
        draft.replace(directory / SENT)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def is_sent(directory: Path) -> bool:
    """Whether all of it is acknowledged."""
    return os.path.lexists(directory / SENT)


def sweep(root: Path, *, grace_seconds: float, keep_bytes: int, now: float) -> int:
    """Remove what was sent longer ago than the grace, and more, the oldest first, where that holds above `keep_bytes`.

    Nothing that somebody alive owns, nothing that is not sent; but a directory that never came to have a segment.
    Many processes may sweep at once. Returns how many spools are gone. Never raises for what others do.
    """
    try:
        _finish_removals(root)
        sent = sorted(each for directory in found(root) if (each := _done(directory)) is not None)
    except OSError:
        return 0
    kept = sum(size for _, size, _ in sent)
    removed = 0
    for at, size, directory in sent:
        # A time to come, or long gone, is a clock that was wrong.
        if (abs(now - at) > grace_seconds or (kept > keep_bytes and size)) and remove(directory):
            kept -= size
            removed += 1
    return removed


def _own() -> str:
    return f"penstock-{os.getuid()}" if hasattr(os, "getuid") else "penstock"


def _home() -> Path | None:
    told = address.state_home()
    if told is not None and Path(told).is_absolute():
        return Path(told) / "penstock" / "spool"
    try:
        return Path.home() / ".local" / "state" / "penstock" / "spool"
    except RuntimeError:  # this user has none
        return None


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / _own()


def _in_shared(place: Path) -> Path:
    """The place itself if it is not there or ours alone, else one of our own in it."""
    return place if not place.exists() or _is_ours(place) else place / _own()


def _is_ours(place: Path) -> bool:
    """Whether it is a directory of ours that nobody else can write into."""
    try:
        # Where others can make names, one of them may lead elsewhere.
        status = place.stat(follow_symlinks=place.name != _own())
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode):
        return False
    return not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)


def _usable(place: Path, advice: str) -> Path:
    """The place, made if it was not there, and tried. Raises NoPlace."""
    advice = f"; {advice}" if advice else ""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(place):
            raise NoPlace(f"{place} belongs to somebody else, or others may write into it{advice}")
        trial = place / f"{_TRIAL}{os.getpid()}-{os.urandom(6).hex()}"
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        trial.unlink()
    except NoPlace:
        raise
    except OSError as error:
        raise NoPlace(f"cannot write to {place}: {error.strerror or error}{advice}") from error
    return place


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _begun(directory: Path) -> float | None:
    """When the oldest of its segments was last written to. None: it has no segment, and nothing to send."""
    try:
        return min((each.st_mtime for each in _segments(directory)), default=None)
    except OSError:
        return None


def _segments(directory: Path) -> Iterator[os.stat_result]:
    with os.scandir(directory) as entries:
        for each in entries:
            with suppress(FileNotFoundError):  # removed meanwhile
                if each.name.endswith(SUFFIX):
                    yield each.stat(follow_symlinks=False)


def _done(directory: Path) -> tuple[float, int, Path] | None:
    """Since when it is of no more use, its size and itself; None while it is. Raises OSError for none that is there."""
    try:
        there = contents(directory)
        if is_sent(directory):
            return _sent_at(directory), there.size, directory
        if not there.segments and abs(time.time() - there.written) > _YOUNG_SECONDS:
            return there.written, 0, directory
    except OSError:
        pass  # swept away by another, or not for us to read
    return None


def _sent_at(directory: Path) -> float:
    mark = directory / SENT
    try:
        return float(json.loads(mark.read_bytes())["at"])
    except (ValueError, KeyError, TypeError):
        return mark.lstat().st_mtime


def remove(directory: Path) -> bool:
    """Remove a spool, unless somebody alive owns it, or another is about to remove it."""
    try:
        claimed = owner.Owner.claim(directory)
        if claimed is None:
            return False
        gone = directory.with_name(f"{_GONE}{directory.name}-{os.urandom(6).hex()}")
        try:
            if os.name == "nt":
                claimed.release()  # there, an open file holds its directory in its place
            directory.rename(gone)  # from here on nobody finds it, whatever happens to us
        finally:
            claimed.release()
    except OSError:
        return False
    _empty(gone)
    return True


def _finish_removals(root: Path) -> None:
    """What a process left half removed when it was killed."""
    with os.scandir(root) as entries:
        for each in entries:
            if each.name.startswith(_GONE) and _is_directory(each):
                _empty(root / each.name)


def _empty(gone: Path) -> None:
    """Remove what is known by its name; the directory too, when that was all."""
    with suppress(OSError):  # others are at it, or something is in there that is not ours
        for name in os.listdir(gone):  # noqa: PTH208
            ours = name == SENT or name.startswith(_SENT_DRAFT) or name.endswith(SUFFIX) or owner.is_ours(name)
            if ours:
                with suppress(OSError):
                    (gone / name).unlink()
        gone.rmdir()
