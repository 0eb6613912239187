"""What has files: a run, a logged model or a trace; how it is named, and where in the store its files lie."""

from __future__ import annotations

import enum
import uuid
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.runs import RunId


class OwnerKind(enum.Enum):
    """Each with what stands before the 32 hexadecimal digits of an id, and before that in keys of the store."""

    RUN = "", ""
    LOGGED_MODEL = "m-", "models/"
    TRACE = "tr-", "traces/"

    @property
    def label(self) -> str:
        """As people read it: run, logged model, trace."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True)
class Owner:
    """One of them, as callers name it. `str()` of it is its id as text: 8f…, m-8f…, tr-8f…"""

    kind: OwnerKind
    id: uuid.UUID

    def __str__(self) -> str:
        return self.kind.value[0] + self.id.hex


@dataclass(frozen=True, slots=True)
class OwnerRef:
    """One that is there, and where it belongs.

    `id` is what its files are known by: its own, but for a trace, whose id another workspace may have as well.
    """

    workspace_id: WorkspaceId
    experiment_id: ExperimentId
    owner: Owner
    id: uuid.UUID

    @property
    def place(self) -> str:
        """What the keys of all its files begin with."""
        name, above = self.owner.kind.value
        return f"{self.experiment_id}/{above}{name}{self.id.hex}"


def of_run(run_id: RunId) -> Owner:
    """A run."""
    return Owner(OwnerKind.RUN, run_id)


def parse_owner(text: str, where: str = "run_id") -> Owner:
    """The id that a request carries as text; that of a run also with dashes. Raises InvalidArgument."""
    name, dash, digits = text.partition("-")
    kind = next((kind for kind in OwnerKind if kind.value[0] == name + dash), OwnerKind.RUN)
    try:
        if kind is OwnerKind.RUN:
            digits = text
        if len(digits) not in ((32, 36) if kind is OwnerKind.RUN else (32,)):
            raise ValueError
        return Owner(kind, uuid.UUID(digits))
    except ValueError:
        raise InvalidArgument(
            where, f"{text[:40]!r} is no id: a run's has 32 hexadecimal digits, m- or tr- before those of others"
        ) from None
