"""What a call to the server can raise.

    PenstockError
    ├── InvalidArgument        the request can never succeed as it is
    │   └── InvalidFilter      … and its filter or order_by says where, and what was expected
    ├── NotFound
    ├── AlreadyExists          also a param that has another value
    ├── FailedPrecondition     it is not in the state that the call needs; it may be deleted
    │   ├── AliasMoved         an alias does not name the version that was expected; it says who has moved it
    │   └── Guarded            an alias or a stage has a policy: `promote` gets there
    ├── PermissionDenied
    ├── Unauthenticated
    ├── Retryable              the same call will succeed later
    │   ├── Unavailable        no server there, or it cannot serve now
    │   ├── Busy               it has no room at the moment
    │   ├── TimedOut           no answer in time; the call may have been carried out
    │   ├── Changed            an artifact is no longer the one that was asked for
    │   └── UploadGone         an upload has ended, was given up, or another goes on with it
    ├── SourceChanged          a file was written to while it was read
    ├── TransferFailed         some files of many; `failures` says which, and why
    └── ServerError            a bug of the server, or a version that does not fit
        └── UnknownCall        … and has no such method: it is older, or serves artifacts only

`str()` of each is the server's own sentence. Logging to a run raises none of them. Stopped, which is none of them,
ends a transfer that was told to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import unquote

import grpc


class PenstockError(Exception):
    """Base of all. `facts` is what the server tells a program beside the sentence."""

    def __init__(self, message: str, facts: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.facts = facts or {}


class InvalidArgument(PenstockError):
    """The request can never succeed as it is."""


class InvalidFilter(InvalidArgument):
    """A filter or order_by does not follow the grammar."""


class NotFound(PenstockError):
    """There is no such thing."""


class AlreadyExists(PenstockError):
    """The name is taken, or a param has another value."""


class FailedPrecondition(PenstockError):
    """The thing is not in the state that the call needs."""


class AliasMoved(FailedPrecondition):
    """An alias does not name the version that was expected: somebody has moved it."""

    @property
    def version(self) -> int:
        """The version that it names now; 0: none."""
        return int(self.facts.get("penstock-version", "0"))

    @property
    def moved_by(self) -> str:
        """Who has moved it; empty when nobody ever has."""
        return unquote(self.facts.get("penstock-moved-by", ""))

    @property
    def moved_ms(self) -> int:
        """When, in ms since 1970 UTC; 0 when nobody ever has."""
        return int(self.facts.get("penstock-moved-ms", "0"))


class Guarded(FailedPrecondition):
    """A policy guards the alias or the stage: only `promote`, or approvals, get there."""


class PermissionDenied(PenstockError):
    """The caller may not do this."""


class Unauthenticated(PenstockError):
    """The server does not know the caller."""


class Retryable(PenstockError):
    """The same call will succeed later."""


class Unavailable(Retryable):
    """The server is away."""


class Busy(Retryable):
    """The server has no room at the moment."""


class TimedOut(Retryable):
    """No answer in time."""


class Changed(Retryable):
    """An artifact has been replaced while it was read."""


class UploadGone(Retryable):
    """An upload is not there any more: it is to be begun anew."""


class SourceChanged(PenstockError):
    """A file of this machine was written to while it was read. Nothing of it is visible."""


class TransferFailed(PenstockError):
    """Some of many files could not be brought where they should be. `failures` has the error of each, by its path."""

    def __init__(self, failures: Mapping[str, Exception], of: int) -> None:
        told = "; ".join(f"{path}: {error}" for path, error in list(failures.items())[:_TOLD])
        more = f"; and {len(failures) - _TOLD} more" if len(failures) > _TOLD else ""
        super().__init__(f"{len(failures)} of {of} file{'s' * (of != 1)} failed: {told}{more}")
        self.failures = dict(failures)


class Stopped(Exception):
    """Whoever wanted a transfer has set its `stop`. What is there of it stays, to be gone on with."""


class ServerError(PenstockError):
    """The server failed, or is of a version that does not know the call."""


class UnknownCall(ServerError):
    """The server has no such method."""


_CLASSES: dict[grpc.StatusCode, type[PenstockError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.ABORTED: Retryable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
}
# By the server's own names, where one status stands for several.
_BY_NAME: dict[tuple[grpc.StatusCode, str], type[PenstockError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, "InvalidFilter"): InvalidFilter,
    (grpc.StatusCode.FAILED_PRECONDITION, "AliasMoved"): AliasMoved,
    (grpc.StatusCode.FAILED_PRECONDITION, "Guarded"): Guarded,
    (grpc.StatusCode.ABORTED, "Changed"): Changed,
    (grpc.StatusCode.ABORTED, "UploadGone"): UploadGone,
}

_TOLD = 5


def from_status(
    code: grpc.StatusCode, details: str, metadata: Iterable[tuple[str, str | bytes]], target: str
) -> PenstockError:
    """The error that a call's status tells."""
    facts = {key: str(value) for key, value in metadata if key.startswith("penstock-") or key == "retry-after-ms"}
    cls = _BY_NAME.get((code, facts.get("penstock-error", "")), _CLASSES.get(code, ServerError))
    if cls is Unavailable and "penstock-error" not in facts:
        start = " start one with `penstock-server serve`, or" if _is_here(target) else ""
        return cls(f"no server at {target};{start} set PENSTOCK_URL to where it is ({details})", facts)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return UnknownCall(f"the server at {target} has no such method: it is older, or serves artifacts only", facts)
    if cls is TimedOut:
        return cls(f"no answer from {target} in time", facts)
    return cls(details or code.name, facts)


def _is_here(target: str) -> bool:
    return target.startswith(("localhost:", "127.", "[::1]", "unix:"))
