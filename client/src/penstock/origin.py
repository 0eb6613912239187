"""Where a run comes from: script, commit, user, host, rank. Found out cheaply, and never a reason to fail."""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.names import KEY_LIMIT, NAME_LIMIT, fit

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Empty text where it could not be found out."""

    source_name: str
    git_commit: str
    user: str
    host: str

    @property
    def tags(self) -> dict[str, str]:
        """As run tags; the first three under the names that MLflow gives them."""
        told = {
            "mlflow.source.name": self.source_name,
            "mlflow.source.git.commit": self.git_commit,
            "mlflow.user": self.user,
            "penstock.host": self.host,
        }
        return {key: value for key, value in told.items() if value}


def find_origin() -> Origin:
    """Of this process."""
    script = _script()
    return Origin(
        source_name=fit(script, NAME_LIMIT),
        git_commit=git_commit(Path(script).parent if script else Path()),
        user=fit(login(), KEY_LIMIT),
        host=fit(socket.gethostname(), KEY_LIMIT),
    )


def rank(environ: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Rank and world size of a distributed job, as its launcher tells them; (0, 0) without one."""
    environ = os.environ if environ is None else environ
    for rank_name, size_name in _RANKS:
        told, size = environ.get(rank_name, ""), environ.get(size_name, "")
        if told.isdecimal() and int(told) < 2**31:
            return int(told), int(size) if size.isdecimal() and int(size) < 2**31 else 0
    return 0, 0


def git_commit(directory: Path) -> str:
    """The commit that the working tree around `directory` is at, from git's files; empty when there is none."""
    try:
        for place in _upwards(directory.resolve()):
            dot_git = place / ".git"
            if dot_git.is_dir():
                return _head(dot_git)
            if dot_git.is_file():  # a worktree or a submodule
                told = dot_git.read_text(errors="replace").strip().removeprefix("gitdir:").strip()
                return _head(place / told)
    except (OSError, RuntimeError, ValueError):
        pass  # unreadable, a loop of links, a NUL in a path: then it is not known
    return ""


def _upwards(directory: Path) -> Iterator[Path]:
    yield directory
    yield from directory.parents


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text(errors="replace").strip()
    if not head.startswith("ref:"):
        return _commit(head)
    ref = head.removeprefix("ref:").strip()
    common = git / "commondir"
    places = [git, git / common.read_text(errors="replace").strip()] if common.is_file() else [git]
    for place in places:
        if (place / ref).is_file():
            return _commit((place / ref).read_text(errors="replace").strip())
    for place in places:
        if (place / "packed-refs").is_file():
            with (place / "packed-refs").open(errors="replace") as lines:
                for line in lines:
                    if line.rstrip().endswith(f" {ref}"):
                        return _commit(line.split(" ", 1)[0])
    return ""


def _commit(text: str) -> str:
    return text if _COMMIT.fullmatch(text) else ""


def _script() -> str:
    script = getattr(sys.modules.get("__main__"), "__file__", None) or (sys.argv[0] if sys.argv else "")
    return "" if script in ("", "-c", "-m") else str(script)


def login() -> str:
    """How the system calls who we are. Empty when it does not tell."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # no such user in a container's passwd
        return str(os.getuid()) if hasattr(os, "getuid") else ""
