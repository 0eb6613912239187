"""How the error vocabulary is told over gRPC: the one table, and the facts that go into trailing metadata.

A status has a code and a sentence. What a program wants to read goes beside it, as metadata: `penstock-error` is
the name of the error's class, the others are listed at `facts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from grpc import StatusCode

from penstock_server.model import errors
from penstock_server.model.errors import PenstockError

STATUS: dict[type[PenstockError], StatusCode] = {
    errors.InvalidArgument: StatusCode.INVALID_ARGUMENT,
    errors.InvalidFilter: StatusCode.INVALID_ARGUMENT,
    errors.InvalidPageToken: StatusCode.INVALID_ARGUMENT,
    errors.ContentMismatch: StatusCode.INVALID_ARGUMENT,
    errors.NotFound: StatusCode.NOT_FOUND,
    errors.AlreadyExists: StatusCode.ALREADY_EXISTS,
    errors.ParamChanged: StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    errors.NotActive: StatusCode.FAILED_PRECONDITION,
    errors.AliasMoved: StatusCode.FAILED_PRECONDITION,
    errors.Guarded: StatusCode.FAILED_PRECONDITION,
    errors.StoreRefused: StatusCode.FAILED_PRECONDITION,
    errors.PermissionDenied: StatusCode.PERMISSION_DENIED,
    errors.SequenceGap: StatusCode.OUT_OF_RANGE,
    errors.Fenced: StatusCode.ABORTED,
    errors.Changed: StatusCode.ABORTED,
    errors.UploadGone: StatusCode.ABORTED,
    errors.Retryable: StatusCode.UNAVAILABLE,
    errors.Busy: StatusCode.RESOURCE_EXHAUSTED,
    errors.StoreFull: StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: StatusCode.UNAVAILABLE,
}

# All metadata of an answer has 8 KiB, and a character may take twelve bytes there.
_LONGEST_SENTENCE = 1500
_LONGEST_FACT = 300

Metadata = tuple[tuple[str, str], ...]


def code(error: Exception) -> int:
    """The status code's number, where an error is told inside of a message."""
    number: int = STATUS[type(error)].value[0] if isinstance(error, PenstockError) else StatusCode.INTERNAL.value[0]
    return number


def sentence(error: Exception) -> str:
    """What the caller reads, cut to what fits."""
    return _cut(str(error), _LONGEST_SENTENCE)


def metadata(error: PenstockError) -> Metadata:
    """The facts, as trailing metadata: in ASCII, other characters percent-encoded."""
    return tuple((key, quote(_cut(str(value), _LONGEST_FACT), safe=_PRINTABLE)) for key, value in facts(error))


def facts(error: PenstockError) -> Iterator[tuple[str, object]]:
    """What a program can act on."""
    yield "penstock-error", type(error).__name__
    match error:
        case errors.InvalidFilter():
            yield "penstock-field", error.field
            yield "penstock-position", error.position
            yield "penstock-expected", error.expected
        case errors.InvalidArgument():
            yield "penstock-field", error.field
        case errors.NotFound() | errors.AlreadyExists() | errors.NotActive():
            yield "penstock-kind", error.kind
        case errors.AliasMoved():
            yield "penstock-model", error.model
            yield "penstock-alias", error.alias
            yield "penstock-version", error.version
            yield "penstock-moved-by", error.moved_by
            yield "penstock-moved-ms", error.moved_ms
        case errors.Guarded():
            yield "penstock-model", error.model
            yield "penstock-target", error.target
        case errors.SequenceGap():
            yield "penstock-expected-seq", error.expected
        case errors.Fenced():
            yield "penstock-epoch", error.epoch
        case errors.Retryable():
            yield "retry-after-ms", round(error.retry_after * 1000)
        case _:
            pass


_PRINTABLE = "".join(chr(number) for number in range(0x20, 0x7F) if chr(number) != "%")


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else encoded[:limit].decode(errors="ignore") + "…"
