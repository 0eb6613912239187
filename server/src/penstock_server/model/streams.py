"""A writer's stream: what it says, and what it is answered. docs/protocol.md tells the rules."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import NewType

from penstock_server.model.runs import NewRun, RunId, RunStatus

WriterId = NewType("WriterId", uuid.UUID)

PROTOCOL = 1
HOST_LIMIT = 250


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a stream."""

    protocol: int
    run_id: RunId
    create_run: NewRun | None
    writer_id: WriterId
    epoch: int
    last_acked: int = 0
    last_spooled: int = 0
    rank: int = 0
    world_size: int = 0
    host: str = ""
    pid: int = 0
    refused: int = 0
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """One param (`is_param`) or one tag."""

    is_param: bool
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive records: frames as columns of little-endian numbers, or updates, or nothing when they are `lost`."""

    first_seq: int
    count: int
    new_shapes: list[tuple[str, ...]]
    shapes: bytes  # uint32 per frame
    steps: bytes  # int64 per frame
    times_ms: bytes  # int64 per frame
    values: bytes  # float64s, all of the first frame, then of the second, …
    updates: list[Update]
    lost: bool = False

    @property
    def last_seq(self) -> int:
        """The sequence number of the last record."""
        return self.first_seq + self.count - 1

    @property
    def size(self) -> int:
        """What the batch weighs in the buffer, in bytes."""
        return (
            256
            + len(self.shapes)
            + len(self.steps)
            + len(self.times_ms)
            + len(self.values)
            + sum(128 + len(update.key) + len(update.value) for update in self.updates)
        )


@dataclass(frozen=True, slots=True)
class Finish:
    """No more records of this writer. `status` None leaves the run as it is."""

    last_seq: int
    status: RunStatus | None = None
    end_ms: int | None = None
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """Everything up to `hwm` is committed."""

    hwm: int


@dataclass(frozen=True, slots=True)
class Reject:
    """These records are refused for good, because of `error`."""

    first_seq: int
    last_seq: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Throttle:
    """The server is short of room."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server is about to stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class FinishAck:
    """Everything is committed and the run has its status."""

    hwm: int


Event = Ack | Reject | Throttle | GoAway | FinishAck
