"""Artifacts, the files of runs and the like: what a path may be, where in the store one lies, how its root is told."""

from __future__ import annotations

import mimetypes
import re
import uuid
from dataclasses import dataclass
from typing import NamedTuple, NewType
from urllib.parse import quote, unquote, urlsplit

from penstock_server.model.errors import InvalidArgument
from penstock_server.model.limits import check_text
from penstock_server.model.owners import OwnerRef

UploadId = NewType("UploadId", uuid.UUID)

PATH_LIMIT = 800
NAME_LIMIT = 255
MEDIA_TYPE_LIMIT = 200
MEDIA_TYPE_UNKNOWN = "application/octet-stream"

# Endings that Python does not know, or not in every version of it or on every machine. Of weights (.pt, .safetensors,
# .onnx, .npz) nothing better is registered than that they are bytes.
_MEDIA_TYPES = {
    "arrow": "application/vnd.apache.arrow.file",
    "avif": "image/avif",
    "cfg": "text/plain",
    "csv": "text/csv",
    "feather": "application/vnd.apache.arrow.file",
    "ini": "text/plain",
    "ipynb": "application/x-ipynb+json",
    "jsonl": "application/jsonl",
    "log": "text/plain",
    "md": "text/markdown",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
    "rst": "text/x-rst",
    "toml": "application/toml",
    "webp": "image/webp",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
_TEXTS = ("AUTHORS", "CHANGELOG", "DOCKERFILE", "LICENSE", "MAKEFILE", "MLMODEL", "MLPROJECT", "NOTICE", "README")
_CODINGS = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}

MIB = 1 << 20
PART_BYTES = 8 * MIB
PART_BYTES_MOST = 16 * MIB
PARTS_MOST = 10_000  # S3 allows no more
SIZE_LIMIT = PARTS_MOST * PART_BYTES_MOST

_GOOD = "write a relative path such as models/best/weights.pt"
_DRIVE = re.compile(r"[A-Za-z]:")
_HALF = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Artifact(NamedTuple):
    """A file of an owner, or a directory of such, which has nothing but a path. Sizes are in bytes, times in ms."""

    path: str
    is_directory: bool = False
    size: int = 0
    sha256: bytes = b""
    media_type: str = ""
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A part that is stored. `prefix_sha256` is of the file up to its end; empty where that is not known."""

    number: int
    size: int
    etag: str
    prefix_sha256: bytes = b""


def check_path(path: str, field: str = "path") -> str:
    """A path of an artifact, as it is. Raises InvalidArgument, which says what a good one is."""
    if not path:
        raise InvalidArgument(field, f"must not be empty; {_GOOD}")
    problem = _problem(path)
    if problem:
        raise InvalidArgument(field, f"{path[:200]!r} {problem}; {_GOOD}")
    return path


def check_directory(path: str, field: str = "directory") -> str:
    """A path of a directory, without a `/` at its end; empty is the root. Raises InvalidArgument."""
    path = path.removesuffix("/")
    return check_path(path, field) if path else ""


def _problem(path: str) -> str:
    names = path.split("/")
    if _HALF.search(path):
        return "has half of a surrogate pair, which is no character"
    if found := _CONTROL.search(path):
        return f"has a control character at position {found.start()}"
    if "\\" in path:
        return "has a back-slash; names are parted by /"
    if _DRIVE.match(path):
        return "begins with a drive letter"
    if path.startswith("/"):
        return "is absolute"
    if "" in names:
        return "has an empty name"
    if "." in names or ".." in names:
        return "has a . or .. in it"
    if len(path.encode()) > PATH_LIMIT:
        return f"is {len(path.encode())} bytes long; the limit is {PATH_LIMIT}"
    if long := next((name for name in names if len(name.encode()) > NAME_LIMIT), ""):
        return f"has a name of {len(long.encode())} bytes; the limit is {NAME_LIMIT}"
    return ""


def parents(path: str) -> list[str]:
    """The directories that a path is in, from the outermost on: none of them may be a file."""
    return [path[:end] for end, character in enumerate(path) if character == "/"]


def check_size(size: int) -> int:
    """A size in bytes that can be stored. Raises InvalidArgument."""
    if not 0 <= size <= SIZE_LIMIT:
        raise InvalidArgument("size", f"{size} is not within 0 to {SIZE_LIMIT} (156 GiB)")
    return size


def check_sha256(digest: bytes, field: str = "sha256") -> bytes:
    """A SHA-256, or nothing. Raises InvalidArgument."""
    if len(digest) not in (0, 32):
        raise InvalidArgument(field, f"has {len(digest)} bytes; a SHA-256 has 32")
    return digest


def media_type(told: str, path: str) -> str:
    """What was told, or what the name says. Raises InvalidArgument."""
    check_text("media_type", told, MEDIA_TYPE_LIMIT)
    if _CONTROL.search(told) or not told.isascii():
        raise InvalidArgument("media_type", "has characters beyond printable ASCII; write one such as text/plain")
    return told or _guessed(path)


def _guessed(path: str) -> str:
    """By the name's ending, on every machine alike: those of the machine's own tables come last."""
    name = path.rpartition("/")[2]
    if name.upper() in _TEXTS:
        return "text/plain"
    if (found := _MEDIA_TYPES.get(name.rpartition(".")[2].lower())) and "." in name:
        return found
    found, coding = mimetypes.guess_type(name)
    # What is compressed is not what is in it, which is all that `a.csv.gz` would be said to be.
    return _CODINGS.get(coding, MEDIA_TYPE_UNKNOWN) if coding else found or MEDIA_TYPE_UNKNOWN


def part_bytes(size: int | None) -> int:
    """How a file of this size is cut. Of unknown size, so that the largest fits."""
    return PART_BYTES if size is not None and size <= PARTS_MOST * PART_BYTES else PART_BYTES_MOST


def key_of(owner: OwnerRef, path: str) -> str:
    """Where an artifact lies below the store's root."""
    return f"{owner.place}/artifacts/{path}"


def version_key_of(owner: OwnerRef, path: str, upload_id: UploadId) -> str:
    """Where one lies that comes while another of that path is there: objects are never written twice."""
    return f"{owner.place}/versions/{upload_id.hex}/{path}"


@dataclass(frozen=True, slots=True)
class LocalRoot:
    """A directory of this machine. `windows`: it has a drive letter, or names a share."""

    path: str
    windows: bool = False

    def uri(self, key: str = "") -> str:
        """As a file: URI, percent-encoded."""
        if self.path.startswith("//"):
            return "file:" + quote(_below(self.path, key))
        return "file://" + quote(_below(self.path if self.path.startswith("/") else f"/{self.path}", key), safe="/:")


@dataclass(frozen=True, slots=True)
class S3Root:
    """A bucket, and what all keys in it begin with; no `/` at either end of that."""

    bucket: str
    prefix: str = ""

    def key(self, key: str) -> str:
        """The whole key of an object."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def uri(self, key: str = "") -> str:
        """As s3://…, not encoded, which is how tools for S3 write it."""
        return _below(f"s3://{self.bucket}" + (f"/{self.prefix}" if self.prefix else ""), key)


def _below(root: str, key: str) -> str:
    return f"{root.rstrip('/')}/{key}" if key else root


_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX_LIMIT = 100


def parse_root(text: str) -> LocalRoot | S3Root:
    """`s3://bucket/prefix`, `file:///srv/artifacts`, `/srv/artifacts`, `E:\\models`, `E:/models`, `\\\\host\\share`.

    A relative path stays one. Raises ValueError with a sentence.
    """
    if not text or _CONTROL.search(text):
        raise ValueError("must be a directory or s3://bucket/prefix, without control characters")
    if _DRIVE.match(text) or text.startswith("\\\\"):
        return LocalRoot(_windows(text), windows=True)
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme or scheme.startswith("."):
        return LocalRoot(text)
    match scheme.lower():
        case "file":
            return _file(text)
        case "s3":
            return _s3(rest)
    raise ValueError(f"{scheme}: is no kind of store that there is; write a directory, file:///… or s3://bucket/prefix")


def _file(text: str) -> LocalRoot:
    parts = urlsplit(text)
    path = unquote(parts.path)
    if parts.query or parts.fragment:
        raise ValueError("a file: URI has no ? and no #; write them percent-encoded: %3F, %23")
    if parts.netloc and parts.netloc.lower() != "localhost":
        return LocalRoot(_windows(f"//{parts.netloc}{path}"), windows=True)
    if _DRIVE.match(path[1:]):
        return LocalRoot(_windows(path[1:]), windows=True)
    if not path.startswith("/"):
        raise ValueError("a file: URI names an absolute path, such as file:///srv/artifacts")
    return LocalRoot(path)


def _windows(path: str) -> str:
    path = path.replace("\\", "/")
    if _DRIVE.match(path):
        if path[2:3] not in ("/", ""):
            raise ValueError(f"{path!r} is relative to the directory that its drive is at; write {path[:2]}/{path[2:]}")
        return path[:2].upper() + "/" + path[2:].strip("/")
    return path.rstrip("/")


def _s3(rest: str) -> S3Root:
    if not rest.startswith("//"):
        raise ValueError("write s3://bucket/prefix")
    bucket, _, prefix = rest[2:].partition("/")
    prefix = prefix.strip("/")
    if "@" in bucket:
        raise ValueError("write s3://bucket/prefix, without credentials: they are found as AWS's tools find them")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{bucket!r} is no name of a bucket: 3 to 63 of a-z, 0-9, '-' and '.'")
    if prefix and (problem := _problem(prefix)):
        raise ValueError(f"the prefix {problem}")
    if len(prefix.encode()) > _PREFIX_LIMIT:
        raise ValueError(f"the prefix is {len(prefix.encode())} bytes long; the limit is {_PREFIX_LIMIT}")
    return S3Root(bucket, prefix)
