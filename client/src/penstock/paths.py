"""What a path of an artifact may be, which files of this machine are taken, and where one of a server may be written.

The rules are the server's, so that nothing is sent that it would refuse; and what comes from a server is held against
them too: a name that leads out of the directory that was asked for is never written to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.names import text_problem

PATH_LIMIT = 800
NAME_LIMIT = 255

PART_SUFFIX = ".penstock-part"  # with a dot at its beginning, what came of a download that broke off

_GOOD = "write a relative path such as models/best/weights.pt"
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]|[. ]$')
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)


def artifact_path(path: str | os.PathLike[str]) -> str:
    """A path in a run: back-slashes are turned, and the rest is as it is. Raises ValueError, TypeError."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a path of an artifact is text, not {type(text).__name__}")
    text = text.replace("\\", "/")
    if problem := _problem(text):
        raise ValueError(f"{text[:200]!r} {problem}; {_GOOD}")
    return text


def artifact_directory(path: str | os.PathLike[str]) -> str:
    """A directory in a run, with or without a `/` at its end; empty is the run itself. Raises ValueError, TypeError."""
    text = os.fspath(path)
    if isinstance(text, str):
        text = text.replace("\\", "/").removesuffix("/")
    return artifact_path(text) if text else ""


def _problem(path: str) -> str:
    if not path:
        return "is empty"
    if found := _CONTROL.search(path):
        return f"has a control character at position {found.start()}"
    if text_problem(path, len(path)):
        return "is no valid Unicode text"
    if _DRIVE.match(path):
        return "begins with a drive letter"
    if path.startswith("/"):
        return "is absolute"
    names = path.split("/")
    if "" in names:
        return "has an empty name"
    if "." in names or ".." in names:
        return "has a . or .. in it"
    if len(path.encode()) > PATH_LIMIT:
        return f"is {len(path.encode())} bytes long; the limit is {PATH_LIMIT}"
    if long := next((name for name in names if len(name.encode()) > NAME_LIMIT), ""):
        return f"has a name of {len(long.encode())} bytes; the limit is {NAME_LIMIT}"
    return ""


def files_below(root: Path, unreadable: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """All that is not a directory, by its path below `root`, with `/` between names. Links to directories are left out.

    Raises OSError; of a directory within that cannot be read, only where `unreadable` is not there to be told.
    """

    def fail(error: OSError) -> None:
        raise error

    if not root.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is no directory")
    for directory, directories, names in os.walk(root, onerror=unreadable or fail):
        directories.sort()
        for name in sorted(names):
            yield (Path(directory) / name).relative_to(root).as_posix()


def below(directory: Path, path: str, *, windows: bool = os.name == "nt") -> Path:
    """Where in `directory` a path goes that a server has told. Raises ValueError when it is none that can be written.

    Windows takes names with a `:` for something else than a file, and knows devices by their names in any directory.
    """
    problem = "has a back-slash" if "\\" in path else _problem(path)
    names = path.split("/")
    if not problem and windows and (bad := next(filter(_strange, names), None)):
        problem = f"has the name {bad!r}, which Windows does not take for a file"
    if not problem and names[-1].startswith(".") and names[-1].casefold().endswith(PART_SUFFIX):
        problem = "is that of a download that broke off"
    if problem:
        raise ValueError(f"an artifact cannot be written to this machine: its path {path[:200]!r} {problem}")
    return directory.joinpath(*names)


def _strange(name: str) -> bool:
    return bool(_NOT_ON_WINDOWS.search(name) or _DEVICES.fullmatch(name))
