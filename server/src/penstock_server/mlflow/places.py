"""The paths by which MLflow's clients know artifacts: whose a file is stands in its path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from penstock_server.mlflow.errors import MlflowError, invalid, missing
from penstock_server.model.access import Need, Permission, Resource
from penstock_server.model.owners import Owner, parse_owner

_PLACE = re.compile(
    r"\d{1,19}/(?:([0-9a-f]{32})|models/(m-[0-9a-f]{32})|traces/(tr-[0-9a-f]{32}))/artifacts(?:/(.*))?", re.DOTALL
)
# A path of an artifact, each byte of it encoded, and whose it is.
_LIMIT = 4_096
_DECODINGS = 10


@dataclass(frozen=True, slots=True)
class Place:
    """A path within an owner; empty for its root."""

    owner: Owner
    path: str

    def needs(self, permission: Permission) -> Need:
        """What it needs of its caller. A resource that is called run is whatever has files: see ArtifactService."""
        return Need(permission, Resource.RUN, (str(self.owner),))


def find(text: str) -> Place | None:
    """The place of a path below the server's root; None where no artifact can be. Raises MlflowError."""
    found = _PLACE.fullmatch(safe(text))
    if found is None:
        return None
    run, model, trace, path = found.groups()
    return Place(parse_owner(run or model or trace), path or "")


def must_find(text: str) -> Place:
    """As `find`, for who reads: there is nothing at all where no artifact can be."""
    place = find(text)
    if place is None:
        raise nothing(text)
    return place


def to_write(text: str) -> Place:
    """As `find`, of a file that is to be written."""
    if text.endswith("/") or not text:
        raise invalid("Artifact path must include a filename (cannot end with '/').")
    place = find(text)
    if place is None or not place.path:
        raise invalid(
            f"'{text[:256]}' is no path of an artifact: write <experiment id>/<run id>/artifacts/<path>, or "
            "<experiment id>/models/<model id>/artifacts/<path>, or <experiment id>/traces/<trace id>/artifacts/<path>"
        )
    return place


def nothing(path: str) -> MlflowError:
    """There is no file."""
    return missing(f"No such artifact: '{path[:256]}'")


def directory(path: str) -> MlflowError:
    """It is no file."""
    return invalid(f"Artifact path refers to a directory, not a file: '{path[:256]}'")


def safe(path: str) -> str:
    """A path without what means nothing in it: no empty names, no ``.``. Raises MlflowError when it leads out."""
    plain = plainly(path, unquote) if len(path) <= _LIMIT else None
    if plain is None or plain.startswith("/") or "\\" in plain or ".." in plain.split("/"):
        raise invalid("Invalid path")
    return "/".join(name for name in path.split("/") if name not in ("", "."))


def plainly(text: str, decode: Callable[[str], str]) -> str | None:
    """A text decoded until nothing changes. None when it has been encoded more often than anybody means to."""
    for _ in range(_DECODINGS):
        plain = decode(text)
        if plain == text:
            return plain
        text = plain
    return None
