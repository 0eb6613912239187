"""The history of the registry: as far as it has come, and as it goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.calls import REGISTRY, Flow, Request, in_pages, listed, request
from penstock.effort import PATIENCE
from penstock.errors import InvalidArgument, PenstockError, Retryable, ServerError, TimedOut
from penstock.model_versions import ModelStage, ModelVersion, search_versions
from penstock.registry import get_model
from penstock.v1 import registry_pb2 as pb

_PREFIX = "REGISTRY_EVENT_KIND_"
_LEAST, _MOST = 0.1, 5.0  # seconds between tries
# Said by a Penstock server these are its bugs; else a connection has been cut, by whatever is between.
_CUT = frozenset((grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN))
# After these an alias may name, or a stage have, another version, or there is no such model any more.
_MOVES = frozenset(
    (
        "alias_set",
        "alias_deleted",
        "promoted",
        "stage_changed",
        "version_created",
        "version_deleted",
        "model_renamed",
        "model_deleted",
    )
)


@dataclass(frozen=True, slots=True)
class RegistryEvent:
    """Something that has happened. It never changes. The time is ms since 1970 UTC.

    `kind` is `alias_set`, `stage_changed`, `promoted` and so on; what `key`, `before` and `after` are for each of them
    is in docs/client.md. `id` grows with every event of the workspace. `name` is the model's at that time, `version` 0
    where it is about none, `by` whoever did it.
    """

    id: int
    kind: str
    name: str
    version: int
    key: str
    by: str
    time_ms: int
    request_id: str
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


def event_of(message: pb.RegistryEvent) -> RegistryEvent:
    """From the wire. What a newer server tells of, and this client does not know, is of the kind `unspecified`."""
    known = message.kind in pb.RegistryEventKind.values()
    return RegistryEvent(
        id=message.event_id,
        kind=pb.RegistryEventKind.Name(message.kind if known else 0).removeprefix(_PREFIX).lower(),
        name=message.name,
        version=message.version,
        key=message.key,
        by=message.by,
        time_ms=message.time_ms,
        request_id=message.request_id,
        before=dict(message.before),
        after=dict(message.after),
    )


def _kinds(told: Sequence[str]) -> list[str]:
    """As in the protocol. Raises ValueError."""
    known = pb.RegistryEventKind.keys()[1:]
    wire = [f"{_PREFIX}{kind.upper()}" for kind in listed(told)]
    if unknown := set(wire).difference(known):
        kinds = ", ".join(name.removeprefix(_PREFIX).lower() for name in known)
        raise ValueError(f"{unknown.pop().removeprefix(_PREFIX).lower()!r} is no kind of event; there are {kinds}")
    return wire


def events(
    name: str = "",
    version: int = 0,
    *,
    kinds: Sequence[str] = (),
    key: str = "",
    oldest_first: bool = False,
    limit: int | None = None,
) -> Flow[list[RegistryEvent]]:
    """What has happened, the newest first, at most `limit`; None: all.

    To one model, or to all; only to one version of it; only of these `kinds`, such as `alias_set`; only about one
    `key`: an alias, a stage or a tag. The history of a model that was deleted stays.
    """
    wire = _kinds(kinds)
    message = pb.ListEventsRequest(name=name, version=version, kinds=wire, key=key, oldest_first=oldest_first)
    return (yield from in_pages(REGISTRY, "ListEvents", message, limit, lambda page: map(event_of, page.events)))


class Watching:
    """Where a watch stands: what to ask for next, and whether and when to ask again after a failure."""

    def __init__(
        self,
        names: Sequence[str] = (),
        kinds: Sequence[str] = (),
        keys: Sequence[str] = (),
        after: int | None = None,
        patience: float | None = PATIENCE,
        timeout: float | None = None,
    ) -> None:
        """`patience` and `timeout` are in seconds; None: without end. Raises ValueError."""
        self._asked = pb.WatchRegistryRequest(
            names=listed(names), kinds=_kinds(kinds), keys=listed(keys), after_event_id=after
        )
        self._patience = patience
        self._until = None if timeout is None else time.monotonic() + timeout
        self._failing_since: float | None = None
        self._tries = 0
        self._random = random.Random()  # its own: training may have seeded the common one

    @property
    def request(self) -> Request:
        """From where it stands."""
        return request(REGISTRY, "WatchRegistry", self._asked)

    @property
    def left(self) -> float | None:
        """Seconds."""
        return None if self._until is None else max(0.001, self._until - time.monotonic())

    @property
    def late(self) -> bool:
        """Whether its time is over."""
        return self._until is not None and time.monotonic() >= self._until

    def take(self, message: Any) -> RegistryEvent | None:
        """What the server has told, if that is an event that was not told before."""
        self.advanced()
        known = self._asked.after_event_id if self._asked.HasField("after_event_id") else -1
        if message.WhichOneof("told") != "event":
            self._asked.after_event_id = max(known, message.synced_event_id)
            return None
        if message.event.event_id <= known:
            return None
        self._asked.after_event_id = message.event.event_id
        return event_of(message.event)

    def advanced(self) -> None:
        """The server is there: patience begins anew."""
        self._failing_since, self._tries = None, 0

    def too_late(self) -> TimedOut:
        """When its time is over."""
        return TimedOut("nothing has happened in time")

    def failed(self, error: PenstockError) -> float:
        """How many seconds to wait before it is tried again. Raises `error` when there is no sense in that."""
        if not (isinstance(error, Retryable) or _was_cut(error)):
            raise error
        if self.late:
            raise self.too_late() from error
        now = time.monotonic()
        since = self._failing_since = self._failing_since or now
        self._tries += 1
        wait: float = min(_MOST, _LEAST * 2 ** min(self._tries, 10)) * self._random.uniform(0.5, 1.0)
        if self._patience is not None and now + wait > since + self._patience:
            raise error
        return wait if self.left is None else min(wait, self.left)


def _was_cut(error: PenstockError) -> bool:
    cause = error.__cause__
    if not (isinstance(error, ServerError) and isinstance(cause, grpc.RpcError) and cause.code() in _CUT):
        return False
    return not any(key == "x-request-id" for key, _ in cause.trailing_metadata() or ())


class Waiting(Watching):
    """What `wait_for` waits for: that an alias, a stage or the model itself names another version, or just this."""

    def __init__(
        self,
        name: str,
        alias: str | None,
        stage: ModelStage | str | None,
        version: int | None,
        other_than: int | None,
        timeout: float | None,
    ) -> None:
        if alias is not None and stage is not None:
            raise ValueError("give alias= or stage=, not both")
        if version is not None and other_than is not None:
            raise ValueError("give version= or other_than=, not both")
        super().__init__([name], timeout=timeout)
        self._name = name
        self._alias = alias
        self._stage = None if stage is None else ModelStage.of(stage)
        self._version = version
        self._other_than = other_than
        self._named: int | None = None  # nobody has looked

    def advanced(self) -> None:
        """There is a server: from here on it is waited for, however long it is away."""
        super().advanced()
        self._patience = None

    def failed(self, error: PenstockError) -> float:
        """As of a watch; but when the database was restored from a backup, it looks again, and goes on from there."""
        if isinstance(error, InvalidArgument) and self._asked.HasField("after_event_id"):
            self._asked.ClearField("after_event_id")
            return 0.0
        return super().failed(error)

    def concerns(self, event: RegistryEvent | None) -> bool:
        """Whether it is time to look. None: the watch has begun, or begun anew."""
        return event is None or event.kind in _MOVES

    def look(self) -> Flow[ModelVersion | None]:
        """The version, if it is there. Raises NotFound when there is no such model."""
        model = yield from get_model(self._name)
        if self._alias is not None:
            self._named = model.aliases.get(self._alias, 0)
        else:
            there = [each for each in model.latest_versions if self._stage in (None, each.stage)]
            self._named = max((each.version for each in there), default=0)
        if self._version is None and self._other_than is None:
            self._other_than = self._named
        wanted = self._named != self._other_than if self._version is None else self._named == self._version
        if not wanted or not self._named:
            return None
        # By a search, to which it is no error if the version has just been deleted.
        name = self._name.replace("'", "''")
        found = yield from search_versions(f"name = '{name}' AND version = {self._named}", limit=1)
        return found[0] if found else None

    def too_late(self) -> TimedOut:
        """When its time is over."""
        which = f"@{self._alias}" if self._alias is not None else f"/{self._stage or 'latest'}"
        if self._named is None:
            return TimedOut(f"the server has not told in time what models:/{self._name}{which} names")
        names = f"names version {self._named}" if self._named else "names no version"
        return TimedOut(f"models:/{self._name}{which} still {names}")
