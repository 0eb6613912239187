"""Everything that can go wrong and that a caller can act on.

    PenstockError
    ├── InvalidArgument            the request can never succeed as it is
    │   ├── InvalidFilter          … and here is where, and what was expected
    │   └── InvalidPageToken
    ├── NotFound
    ├── AlreadyExists
    │   └── ParamChanged           params are written once
    ├── FailedPrecondition         not in the state that the call needs
    │   ├── NotActive              it is deleted
    │   ├── AliasMoved             an alias is not where the caller thinks
    │   ├── Guarded                only a promotion gets there
    │   └── StoreRefused           the artifacts' store does not work as it is set up
    ├── PermissionDenied
    ├── SequenceGap                a writer skipped records
    ├── Fenced                     another process writes for this writer now
    ├── Changed                    an artifact is not the one that was asked for
    ├── UploadGone                 an upload is not there any more
    └── Retryable                  the same call will succeed later
        ├── Busy                   no room to take it
        │   └── StoreFull          no room in the artifacts' store
        └── Unavailable            the database or the server is away

Adapters raise these, each door has one table that maps them, and a test fails when one has no row.
Anything else that reaches a door is a bug.
"""

from __future__ import annotations

from datetime import UTC, datetime


class PenstockError(Exception):
    """Base of the vocabulary. `str()` of it is the sentence that the caller reads."""


class InvalidArgument(PenstockError):
    """`field` holds something that can never be right."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class InvalidFilter(InvalidArgument):
    """A filter or order_by clause does not follow the grammar, at `position` (0-based) of `text`."""

    def __init__(self, field: str, text: str, position: int, expected: str) -> None:
        found = f"{text[position : position + 20]!r}" if position < len(text) else "the end"
        super().__init__(field, f"at position {position}, expected {expected}, found {found}")
        self.text = text
        self.position = position
        self.expected = expected


class ContentMismatch(InvalidArgument):
    """What has come is not what was told: another size, or another digest. Nothing of it is kept."""


class InvalidPageToken(InvalidArgument):
    """A page token that this server did not make for this very query."""

    def __init__(self) -> None:
        super().__init__("page_token", "not a token of this query; send the token as it was given, with the same query")


class NotFound(PenstockError):
    """There is no such thing."""

    def __init__(self, kind: str, key: object, hint: str = "") -> None:
        named = repr(key) if isinstance(key, str) else key
        super().__init__(f"{kind} {named} does not exist" + (f"; {hint}" if hint else ""))
        self.kind = kind
        self.key = key


class AlreadyExists(PenstockError):
    """The name or id is taken."""

    def __init__(self, kind: str, key: str, hint: str = "") -> None:
        super().__init__(f"{kind} {key!r} already exists" + (f"; {hint}" if hint else ""))
        self.kind = kind
        self.key = key


class ParamChanged(AlreadyExists):
    """A param is written once, and this one has another value."""

    def __init__(self, key: str, old: str, new: str) -> None:
        PenstockError.__init__(
            self, f"param {key!r} is {_short(old)} and cannot become {_short(new)}: params are written once; use a tag"
        )
        self.kind = "param"
        self.key = key
        self.old = old
        self.new = new


class FailedPrecondition(PenstockError):
    """The thing is not in the state that the call needs."""


class NotActive(FailedPrecondition):
    """The thing is deleted; it can be restored."""

    def __init__(self, kind: str, key: object) -> None:
        super().__init__(f"{kind} {key} is deleted; restore it first")
        self.kind = kind
        self.key = key


class AliasMoved(FailedPrecondition):
    """An alias names `version` (0: none), not the one that was expected: `moved_by` did that at `moved_ms`."""

    def __init__(self, model: str, alias: str, version: int, expected: int, moved_by: str, moved_ms: int) -> None:
        now, wanted = (f"version {number}" if number else "no version" for number in (version, expected))
        moved = "it never named one"
        if moved_ms:
            moved = f"{moved_by} moved it at {datetime.fromtimestamp(moved_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
        super().__init__(
            f"alias {alias!r} of {model!r} names {now}, not {wanted}: {moved}; look at it, then try again with "
            f"expected={version}"
        )
        self.model = model
        self.alias = alias
        self.version = version
        self.moved_by = moved_by
        self.moved_ms = moved_ms


class Guarded(FailedPrecondition):
    """A policy guards an alias or a stage: `target` is @alias or a stage's label. So many `approvals` are needed."""

    def __init__(self, model: str, target: str, approvals: int = 0) -> None:
        way = "gates: promote()"
        if approvals:
            way = f"{approvals} approval{'s' if approvals > 1 else ''}: request_promotion()"
        super().__init__(f"{target} of {model!r} is guarded by {way} gets a version there")
        self.model = model
        self.target = target


class StoreRefused(FailedPrecondition):
    """The artifacts' store does not work as it is set up: wrong credentials, no such bucket, a clock that is off."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"the artifacts' store cannot be used: {found}; {remedy}")
        self.found = found
        self.remedy = remedy


class Changed(PenstockError):
    """An artifact is not, or no longer, the one that was asked for."""

    def __init__(self, path: str) -> None:
        super().__init__(f"artifact {path!r} has been replaced by another; download it from the beginning")
        self.path = path


class UploadGone(PenstockError):
    """An upload has ended, was given up, or another stream goes on with it."""

    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload} is not there any more; begin anew")
        self.upload = upload


class PermissionDenied(PenstockError):
    """The caller may not do this."""


class SequenceGap(PenstockError):
    """A batch begins after the record that comes next."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"expected record {expected}, got {got}; open the stream again and resend from its mark")
        self.expected = expected
        self.got = got


class Fenced(PenstockError):
    """Another process has taken this writer over, with a higher `epoch`."""

    def __init__(self, writer: str, epoch: int, ours: int) -> None:
        super().__init__(f"writer {writer} was taken over by a process with epoch {epoch}; this one has {ours}")
        self.epoch = epoch


class Retryable(PenstockError):
    """The same call will succeed later. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(Retryable):
    """No room to take more at the moment."""


class StoreFull(Busy):
    """No room in the artifacts' store."""


class Unavailable(Retryable):
    """The database or this server is away."""


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
