"""Paths of artifacts and roots of stores: every good one survives a round trip, every bad one is told what is good."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock_server.model.access import WorkspaceId
from penstock_server.model.artifacts import (
    NAME_LIMIT,
    PATH_LIMIT,
    LocalRoot,
    S3Root,
    UploadId,
    check_directory,
    check_path,
    key_of,
    parents,
    parse_root,
    version_key_of,
)
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.owners import Owner, OwnerKind, OwnerRef

OWNERS = [
    OwnerRef(WorkspaceId(1), ExperimentId(7), Owner(kind, uuid.UUID(int=1)), uuid.UUID(int=1)) for kind in OwnerKind
]
KEYS: list[Callable[[str], str]] = [
    *(partial(key_of, owner) for owner in OWNERS),
    *(partial(version_key_of, owner, upload_id=UploadId(uuid.UUID(int=2))) for owner in OWNERS),
]

_CHARACTERS = st.characters(codec="utf-8", exclude_characters="/\\\x7f", exclude_categories=["Cs"], min_codepoint=32)
_NAMES = st.text(_CHARACTERS, min_size=1, max_size=60).filter(lambda name: name not in (".", ".."))
_PATHS = (
    st.lists(_NAMES, min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda path: path[1:2] != ":" or not (path[0].isascii() and path[0].isalpha()))
    .filter(lambda path: len(path.encode()) <= PATH_LIMIT)
    .filter(lambda path: all(len(name.encode()) <= NAME_LIMIT for name in path.split("/")))
)


@pytest.fixture(scope="module")
def directory() -> Path:
    return Path(tempfile.mkdtemp(prefix="penstock paths % ü "))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(path=_PATHS)
@example(path="models/best/weights.pt")
@example(path="100%/a%2Fb/%2e%2e")
@example(path="a b/c+d?e#f&g=h;i")
@example(path="ключ/模型/é/e\u0301/🙂")  # the two é are two names
@example(path=" /\u00a0/~/$HOME/*/-rf/con.txt/..." + "x" * 200)
@example(path="\u0085/\u2028/\u202e")
def test_a_good_path_survives_a_round_trip_and_stays_below_the_root(directory: Path, path: str) -> None:
    assert check_path(path) == path
    for key in (make(path) for make in KEYS):
        assert key.endswith(f"/{path}")
        uri = LocalRoot(str(directory)).uri(key)
        assert uri.isascii()
        parts = urlsplit(uri)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("file", "", "", "")
        assert parse_root(uri) == LocalRoot(f"{directory}/{key}")
        file = Path(unquote(parts.path))
        assert os.path.normpath(file) == f"{directory}/{key}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        assert file.resolve(strict=True).is_relative_to(directory.resolve())
        assert file.name == path.rpartition("/")[2]
        assert [str(each) for each in list(Path(path).parents)[-2::-1]] == parents(path)
        file.unlink()
        for above in file.parents:
            if above == directory:
                break
            above.rmdir()
        assert S3Root("bucket", "pre/fix").key(key) == f"pre/fix/{key}"
        assert S3Root("bucket", "pre/fix").uri(key) == f"s3://bucket/pre/fix/{key}"


@given(first=_PATHS, second=_PATHS)
def test_two_paths_have_two_keys(first: str, second: str) -> None:
    keys = [make(path) for make in KEYS for path in {first, second}]
    assert len(set(keys)) == len(keys)
    uris = {LocalRoot("/srv").uri(key) for key in keys}
    assert len(uris) == len(keys)


_BAD = {
    "absolute": ("/etc/passwd", "is absolute"),
    "absolute, twice": ("//host/share", "is absolute"),
    "above": ("../x", "has a . or .. in it"),
    "above, in the middle": ("a/../../x", "has a . or .. in it"),
    "above, at the end": ("a/..", "has a . or .. in it"),
    "here": ("./x", "has a . or .. in it"),
    "drive": ("E:/models", "begins with a drive letter"),
    "drive, relative": ("e:models", "begins with a drive letter"),
    "back-slash": ("models\\best.pt", "has a back-slash; names are parted by /"),
    "back-slash and drive": ("E:\\models", "has a back-slash"),
    "share": ("\\\\host\\share", "has a back-slash"),
    "empty name": ("a//b", "has an empty name"),
    "directory": ("a/b/", "has an empty name"),
    "NUL": ("a\0b", "has a control character at position 1"),
    "newline": ("a\nb", "has a control character at position 1"),
    "delete": ("ab\x7f", "has a control character at position 2"),
    "long name": ("a/" + "x" * (NAME_LIMIT + 1), "has a name of 256 bytes; the limit is 255"),
    "long name of few characters": ("ü" * 128, "has a name of 256 bytes; the limit is 255"),
    "long path": ("a/" * 400 + "b", "is 801 bytes long; the limit is 800"),
    "long path of few characters": ("ü/" * 267 + "b", "is 802 bytes long; the limit is 800"),
    "longer than what is looked at": ("x" * 100_000, "is 100000 bytes long; the limit is 800"),
    "half a character": ("a/\ud800.pt", "has half of a surrogate pair"),
    "the other half": ("\udfff", "has half of a surrogate pair"),
}


@pytest.mark.parametrize(("path", "reason"), _BAD.values(), ids=_BAD)
def test_a_bad_path_is_told_what_a_good_one_is(path: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_path(path, "header.path")
    told = str(caught.value)
    assert told.startswith("header.path: ")
    assert reason in told
    assert told.endswith("write a relative path such as models/best/weights.pt")
    assert told.isprintable()
    assert len(told) < 400


def test_no_path_is_told_too() -> None:
    with pytest.raises(InvalidArgument, match="must not be empty; write a relative path such as models/best"):
        check_path("")


def test_the_longest_path_is_good() -> None:
    check_path("x" * NAME_LIMIT)
    check_path("/".join(["x" * 199] * 4) + "y")
    check_path("ü" * 127)


@given(text=st.text(st.characters(codec=None), max_size=900))
@example(text="/" * 801)
@example(text="\0" * 900)
def test_whatever_comes_is_good_or_told(text: str) -> None:
    try:
        check_path(text)
    except InvalidArgument as error:
        str(error).encode()  # fit for the wire
    else:
        joined = os.path.normpath("/store/" + text)
        assert joined == f"/store/{text}"
        assert PureWindowsPath("E:/store", text).is_relative_to("E:/store")


def test_a_directory_may_end_in_a_slash_or_be_the_root() -> None:
    assert check_directory("a/b/") == check_directory("a/b") == "a/b"
    assert check_directory("") == check_directory("/") == ""
    for bad in ("/a", "a//", "..", "a/../b", "//"):
        with pytest.raises(InvalidArgument, match="directory: "):
            check_directory(bad)


def test_what_a_path_is_in() -> None:
    assert parents("a/b/c.pt") == ["a", "a/b"]
    assert parents("c.pt") == []


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("E:\\models", "file:///E:/models"),
        ("E:/models", "file:///E:/models"),
        ("e:\\models\\", "file:///E:/models"),
        ("file:///E:/models", "file:///E:/models"),
        ("file:///e:/models/", "file:///E:/models"),
        ("file:/E:/models", "file:///E:/models"),
        ("file://localhost/E:/models", "file:///E:/models"),
        ("E:\\", "file:///E:/"),
        ("E:", "file:///E:/"),
        ("E:\\my models\\50%", "file:///E:/my%20models/50%25"),
        ("\\\\host\\share\\models", "file://host/share/models"),
        ("file://host/share/models", "file://host/share/models"),
        ("/srv/artifacts", "file:///srv/artifacts"),
        ("file:///srv/artifacts", "file:///srv/artifacts"),
        ("file:///srv/my%20artifacts", "file:///srv/my%20artifacts"),
        ("/srv/50%/ü", "file:///srv/50%25/%C3%BC"),
        ("FILE:///srv/artifacts", "file:///srv/artifacts"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("S3://bucket/a", "s3://bucket/a"),
    ],
)
def test_a_root_as_people_write_it(text: str, uri: str) -> None:
    root = parse_root(text)
    assert root.uri() == uri
    assert parse_root(uri) == root
    assert root.uri("1/x y.pt") == f"{uri.rstrip('/')}/1/" + ("x y.pt" if isinstance(root, S3Root) else "x%20y.pt")


@pytest.mark.parametrize("text", ["E:\\models", "E:/models", "\\\\host\\share", "file:///E:/x", "file://host/share"])
def test_a_root_of_windows_is_known_as_one(text: str) -> None:
    root = parse_root(text)
    assert isinstance(root, LocalRoot)
    assert root.windows


@pytest.mark.parametrize("text", ["/E:/models", "./E:/models", "models", "./s3:/bucket", "/srv/a:b"])
def test_a_root_of_this_machine_is_no_other(text: str) -> None:
    assert parse_root(text) == LocalRoot(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a directory or s3://bucket/prefix"),
        ("/srv/\0", "without control characters"),
        ("E:models", "write E:/models"),
        ("gs://bucket/x", "gs: is no kind of store that there is"),
        ("http://host/x", "http: is no kind of store"),
        ("s3:bucket", "write s3://bucket/prefix"),
        ("s3://", "is no name of a bucket"),
        ("s3://B/x", "'B' is no name of a bucket"),
        ("s3://bucket/../x", "the prefix has a . or .. in it"),
        ("s3://bucket/a//b", "the prefix has an empty name"),
        ("s3://bucket/\udc80", "the prefix has half of a surrogate pair"),
        ("s3://bucket/" + "x" * 101, "the prefix is 101 bytes long; the limit is 100"),
        ("file:///srv?x", "no \\? and no #"),
        ("file:srv", "names an absolute path"),
    ],
)
def test_a_root_that_is_none_is_told_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_root(text)
