"""What an answer of S3 means that is no success: one table, by the code that it has, else by the HTTP status."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.model.errors import (
    ContentMismatch,
    NotFound,
    PenstockError,
    StoreFull,
    StoreRefused,
    Unavailable,
    UploadGone,
)

_CREDENTIALS = (
    "check what the server's process sees: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the "
    "machine's role"
)
_GRANT = (
    "grant it s3:ListBucket and s3:ListBucketMultipartUploads on the bucket, s3:GetObject, s3:PutObject, "
    "s3:DeleteObject and s3:AbortMultipartUpload on what is in it, and with SSE-KMS the use of the key"
)
_PASSING = ("InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown")
_FULL_SECONDS = 30.0
_BUSY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal. An answer to HEAD has no body: its `code` is the number of its status."""

    code: str
    status: int
    message: str = ""
    region: str = ""


def meaning(answer: Answer, bucket: str, key: str) -> PenstockError:
    """The error that a refusal is, for a call about `key`. No secret is in it: stores do not send them back."""
    said = f"{answer.code}: {answer.message}"[:300].rstrip(": ")
    match answer.code:
        case "NoSuchKey":
            return NotFound("object", key)
        case "InvalidRange":
            return shortened(key)
        case "NoSuchUpload" | "InvalidPart":  # the second: parts are gone, or another wrote over them
            return UploadGone(f"of {key!r}")
        case "InvalidPartOrder" | "EntityTooSmall":
            return ContentMismatch("parts", f"the store cannot put them together ({said})")
        case "NotImplemented" if "replaced" in answer.message:  # rclone, of a part that has come with other bytes
            return UploadGone(f"of {key!r}")
        case "NoSuchBucket" | "InvalidBucketName":
            return StoreRefused(f"there is no bucket {bucket!r}", "create it, or correct artifacts_root")
        case "InvalidAccessKeyId":
            return StoreRefused("it does not know our access key", _CREDENTIALS)
        case "SignatureDoesNotMatch":
            return StoreRefused("our secret is not that of our access key", _CREDENTIALS)
        case "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired":
            return StoreRefused(f"our session token is not valid any more ({answer.code})", _CREDENTIALS)
        case "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" | "301":
            where = f"{answer.region!r}" if answer.region else "another region"
            return StoreRefused(f"bucket {bucket!r} is in {where}", "set s3_region to the bucket's, or s3_endpoint")
        case "RequestTimeTooSkewed":
            return StoreRefused("its clock and ours differ by more than it allows", "set this machine's clock, by NTP")
        case "EntityTooLarge":
            return StoreRefused("it takes no object as large as this", "raise its limit")
        case "NotImplemented" | "MethodNotAllowed":
            return StoreRefused(f"it lacks a call that is needed ({said})", "use a store that has multipart uploads")
        case "BadDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody":
            return Unavailable("the artifacts' store received other bytes than were sent", _BUSY_SECONDS)
    return _by_status(answer, said, bucket)


def shortened(key: str) -> StoreRefused:
    """An object is not what was put there."""
    return StoreRefused(f"{key!r} is shorter than it was when it came", "see who else writes to the bucket")


def _by_status(answer: Answer, said: str, bucket: str) -> PenstockError:
    if _is_full(answer):
        return StoreFull(f"the artifacts' store is full ({said})", _FULL_SECONDS)
    if answer.code.startswith("KMS."):
        return StoreRefused(f"the key of SSE-KMS cannot be used ({said})", "correct s3_kms_key, or enable the key")
    if answer.status in (408, 429) or answer.status >= 500 or answer.code in _PASSING:
        return Unavailable(f"the artifacts' store does not manage at present ({said})", _BUSY_SECONDS)
    if answer.status == 403 or answer.code == "AccessDenied":
        return StoreRefused(f"we may not do this in bucket {bucket!r} ({said})", _GRANT)
    return StoreRefused(f"it answered {said}", "see what its documentation says of that")


def _is_full(answer: Answer) -> bool:
    text = f"{answer.code} {answer.message}".lower().replace(" ", "")
    return answer.status == 507 or any(sign in text for sign in ("quotaexceeded", "storagefull", "nospaceleft"))
