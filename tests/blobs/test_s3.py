"""The store in S3: against a real server (rclone), and against answers that only others give."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import uvloop

from penstock_server.blobs import S3Options, Store, open_store
from penstock_server.blobs.store import Begun
from penstock_server.model.artifacts import MIB, Part, S3Root, parse_root
from penstock_server.model.errors import (
    ContentMismatch,
    NotFound,
    PenstockError,
    StoreFull,
    StoreRefused,
    Unavailable,
    UploadGone,
)
from s3 import SECRET_KEY, S3Server
from s3_front import Front, Reply, front, refusal

RUN = "1/0123456789abcdef0123456789abcdef/artifacts"
KEY = f"{RUN}/models/best.pt"
FIVE = 5 * MIB  # the smallest part but the last

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


@pytest.fixture(autouse=True)
def environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.credentials.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def opened(endpoint: str | None, root: str = "s3://tests/some/prefix", **options: Any) -> AsyncIterator[Store]:
    parsed = parse_root(root)
    assert isinstance(parsed, S3Root)
    store = await open_store(parsed, S3Options(endpoint=endpoint, **options))
    try:
        yield store
    finally:
        await store.close()
        await store.close()


@pytest.fixture
def store(server: S3Server, run: Run) -> Iterator[Store]:
    server.wipe()
    context = opened(server.endpoint)
    yield run(context.__aenter__())
    run(context.__aexit__(None, None, None))


@pytest.fixture
def before(server: S3Server) -> Iterator[Front]:
    with front(server.endpoint) as it:
        yield it


async def content(store: Store, key: str, start: int, length: int) -> bytes:
    return b"".join([chunk async for chunk in store.read(key, start, length)])


async def begun(store: Store) -> list[Begun]:
    return [each async for each in store.begun()]


async def put_parts(store: Store, token: str, pieces: list[bytes]) -> list[Part]:
    parts, offset = [], 0
    for number, piece in enumerate(pieces, 1):
        parts.append(Part(number, len(piece), await store.put_part(KEY, token, number, offset, piece)))
        offset += len(piece)
    return parts


async def test_an_object_as_a_whole(store: Store, server: S3Server) -> None:
    await store.put(KEY, b"weights", "text/plain")
    assert server.files == [KEY]
    assert await store.size(KEY) == 7
    assert await content(store, KEY, 0, 7) == b"weights"
    assert await content(store, KEY, 2, 3) == b"igh"
    assert store.uri(KEY) == f"s3://tests/some/prefix/{KEY}"
    await store.put(KEY + "0", b"", "text/plain")
    assert await store.size(KEY + "0") == 0
    assert await content(store, KEY + "0", 0, 0) == b""


@pytest.mark.parametrize("name", ["a b", "ü/日本", "100%25+x&y=z?#", "'\"<>~*", "a:b@c;d,e$f!"])
async def test_every_name_is_kept_as_it_is(store: Store, before: Front, server: S3Server, name: str) -> None:
    key = f"{RUN}/{name}"
    async with opened(before.endpoint) as counted:
        await counted.put(key, b"x", "text/plain")
    assert len(before.asked) == 1, "the shortcut was not refused"
    assert server.files == [key]
    assert await store.size(key) == 1
    token = await store.begin(key + "2", "text/plain")
    assert [(each.key, each.token) for each in await begun(store)] == [(key + "2", token)]
    await store.abort(key + "2", token)
    await store.delete([key, key + "2"])
    assert server.files == []


async def test_an_object_in_parts_is_there_when_it_is_complete(store: Store) -> None:
    pieces = [os.urandom(FIVE), os.urandom(FIVE + 1), os.urandom(77)]
    token = await store.begin(KEY, "text/plain")
    etags = {}
    for number in (2, 1, 3):
        etags[number] = await store.put_part(KEY, token, number, 0, bytearray(pieces[number - 1]))
    assert await store.size(KEY) is None
    assert [(each.key, each.token) for each in await begun(store)] == [(KEY, token)]
    await store.complete(KEY, token, [Part(n, len(pieces[n - 1]), etags[n]) for n in (1, 2, 3)])
    whole = b"".join(pieces)
    assert await store.size(KEY) == len(whole)
    assert await content(store, KEY, 0, len(whole)) == whole
    assert await content(store, KEY, FIVE - 10, MIB + 20) == whole[FIVE - 10 : FIVE + MIB + 10]
    assert [len(chunk) async for chunk in store.read(KEY, 1, 2 * MIB + 1)] == [MIB, MIB, 1]
    assert await begun(store) == []
    with pytest.raises(UploadGone):
        await store.put_part(KEY, token, 4, 0, b"more")


async def test_a_part_can_come_again(store: Store) -> None:
    token, piece = await store.begin(KEY, "text/plain"), os.urandom(FIVE)
    again = [await store.put_part(KEY, token, 1, 0, memoryview(piece)) for _ in range(2)]
    assert again[0] == again[1]
    await store.complete(KEY, token, [Part(1, FIVE, again[0])])
    assert await content(store, KEY, 0, FIVE) == piece


async def test_a_part_that_comes_again_with_other_bytes(store: Store) -> None:
    """S3 takes it. rclone, which has handed on the first already, does not: then all begins anew."""
    token = await store.begin(KEY, "text/plain")
    await store.put_part(KEY, token, 1, 0, bytes(FIVE))
    for _ in range(2):
        with pytest.raises(UploadGone):
            await store.put_part(KEY, token, 1, 0, b"x" * FIVE)
    await store.abort(KEY, token)


async def test_an_upload_that_is_given_up_is_gone(store: Store, server: S3Server) -> None:
    token = await store.begin(KEY, "text/plain")
    parts = await put_parts(store, token, [bytes(FIVE)])
    for _ in range(2):
        await store.abort(KEY, token)
    await store.abort(KEY, "00000000-0000-0000-0000-000000000000")
    assert await begun(store) == []
    assert server.files == []
    with pytest.raises(UploadGone, match="begin anew"):
        await store.put_part(KEY, token, 2, FIVE, b"x")
    with pytest.raises(UploadGone):
        await store.complete(KEY, token, parts)


async def test_parts_that_are_not_those_of_the_store(store: Store, server: S3Server) -> None:
    token = await store.begin(KEY, "text/plain")
    await put_parts(store, token, [bytes(FIVE)])
    with pytest.raises(UploadGone):
        await store.complete(KEY, token, [Part(1, FIVE, '"00000000000000000000000000000000"')])
    with pytest.raises(UploadGone):
        await store.complete(KEY, token, [Part(2, FIVE, '"00000000000000000000000000000000"')])
    assert await store.size(KEY) is None
    await store.abort(KEY, token)


async def test_what_is_not_there(store: Store) -> None:
    assert await store.size(KEY) is None
    with pytest.raises(NotFound):
        await content(store, KEY, 0, 1)
    await store.delete([KEY])
    await store.delete([KEY, KEY + "2"])
    await store.delete([])


async def test_a_cancelled_read_gives_its_connection_back(server: S3Server) -> None:
    async with opened(server.endpoint, connections=2) as store:  # so one reader
        await store.put(KEY, bytes(4 * MIB), "text/plain")
        for _ in range(3):
            chunks = store.read(KEY, 0, 4 * MIB)
            assert len(await anext(chunks)) == MIB
            waiting = asyncio.create_task(content(store, KEY, 0, 10))
            await asyncio.sleep(0)
            assert not waiting.done()
            await chunks.aclose()  # type: ignore[attr-defined]
            assert await waiting == bytes(10)


async def test_a_read_that_is_left_leaves_nothing_to_the_collector(store: Store) -> None:
    await store.put(KEY, bytes(4 * MIB), "text/plain")
    left: list[object] = []
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(hooks.firstiter, left.append)
    try:
        chunks = store.read(KEY, 0, 4 * MIB)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert left == []


def test_a_cancelled_call_sends_nothing_of_what_its_buffer_has_next() -> None:
    async def main() -> None:
        received = bytearray()
        begun, cancelled, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            begun.set()
            await cancelled.wait()
            while data := await reader.read(MIB):
                received.extend(data)
            over.set()
            writer.close()

        listener = await asyncio.start_server(take, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        async with listener, opened(f"http://127.0.0.1:{port}") as store:
            buffer = bytearray(b"\0" * 32 * MIB)
            putting = asyncio.create_task(store.put(KEY, buffer, "text/plain"))
            await begun.wait()
            await asyncio.sleep(0.1)  # until the line is full: how full it is, it does not say
            putting.cancel()
            await asyncio.wait([putting])
            buffer[:] = b"\1" * len(buffer)
            cancelled.set()
            await over.wait()
        assert len(received) > MIB
        assert b"\1" not in received

    uvloop.run(main())  # as servers do: it keeps what is not sent, and copies nothing


async def test_an_object_that_somebody_has_cut(store: Store) -> None:
    await store.put(KEY, b"weights", "text/plain")
    for start in (0, 100):
        with pytest.raises(StoreRefused, match="shorter than it was when it came; see who else"):
            await content(store, KEY, start, 1000)


async def test_an_endpoint_that_is_something_else() -> None:
    with front() as it:
        it.replies.extend([Reply(200, "<html>Welcome</html>")] * 2)
        async with opened(it.endpoint, attempts=1) as store:
            for part in (store.begin(KEY, "text/plain"), store.put_part(KEY, "u", 1, 0, b"x")):
                with pytest.raises(StoreRefused, match="correct the s3_ settings"):
                    await part


# A store that restarts, or is away.


async def test_a_restart_loses_uploads_in_parts_and_nothing_else(tmp_path: Path) -> None:
    with S3Server(tmp_path / "buckets") as server:
        async with opened(server.endpoint) as store:
            await store.put(KEY + "0", b"weights", "text/plain")
            token = await store.begin(KEY, "text/plain")
            parts = await put_parts(store, token, [bytes(FIVE)])
            await asyncio.to_thread(server.restart)
            assert await content(store, KEY + "0", 0, 7) == b"weights"
            with pytest.raises(UploadGone):
                await store.put_part(KEY, token, 2, FIVE, b"x")
            with pytest.raises(UploadGone):
                await store.complete(KEY, token, parts)
            assert await begun(store) == []
            await store.abort(KEY, token)


async def test_a_store_that_is_away_is_waited_for_and_comes_back(tmp_path: Path) -> None:
    with S3Server(tmp_path / "buckets") as server:
        async with opened(server.endpoint, attempts=2) as store:
            await store.put(KEY, b"weights", "text/plain")
            await asyncio.to_thread(server.stop)
            with pytest.raises(Unavailable, match="not to be reached") as away:
                await store.put(KEY, b"weights", "text/plain")
            assert away.value.retry_after > 0
            with pytest.raises(Unavailable):
                await content(store, KEY, 0, 7)
            await asyncio.to_thread(server.start)
            assert await content(store, KEY, 0, 7) == b"weights"


async def test_a_store_that_takes_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.blobs.s3._READ_SECONDS", 0.2)
    over = asyncio.Event()

    async def take_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    listener = await asyncio.start_server(take_nothing, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, opened(f"http://127.0.0.1:{port}", attempts=1) as store:
        with pytest.raises(Unavailable, match="broke"):
            await store.put_part(KEY, "u", 1, 0, bytes(32 * MIB))  # more than there is room for on the way
        with pytest.raises(Unavailable, match="broke"):
            await store.put(KEY, b"x", "text/plain")
        over.set()


# What is set up wrongly.


async def refused(store: Store) -> str:
    """What a put is told, and a read as well."""
    with pytest.raises(StoreRefused) as put:
        await store.put(KEY, b"x", "text/plain")
    with pytest.raises(StoreRefused) as read:
        await content(store, KEY, 0, 1)
    assert str(put.value) == str(read.value)
    assert SECRET_KEY not in str(put.value)
    return str(put.value)


async def test_another_access_key(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    async with opened(server.endpoint) as store:
        assert "does not know our access key; check what the server's process sees" in await refused(store)


async def test_another_secret(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "g3heim")
    async with opened(server.endpoint) as store:
        said = await refused(store)
    assert "our secret is not that of our access key" in said
    assert "g3heim" not in said


async def test_no_credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with opened(server.endpoint) as store:
        assert "no credentials were found; give the server's process" in await refused(store)


async def test_half_of_the_credentials_and_a_profile_that_is_not_there(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreRefused, match="AWS_SECRET_ACCESS_KEY"):
        async with opened(server.endpoint):
            pass
    monkeypatch.setenv("AWS_PROFILE", "training")
    with pytest.raises(StoreRefused, match="training"):
        async with opened(server.endpoint):
            pass


async def test_credentials_of_a_profile(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = (os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    (tmp_path / "credentials").write_text(f"[training]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "training")
    async with opened(server.endpoint) as store:
        await store.put(KEY, b"x", "text/plain")


async def test_no_such_bucket(server: S3Server) -> None:
    async with opened(server.endpoint, "s3://nobody-has-made-it/x") as store:
        assert "there is no bucket 'nobody-has-made-it'; create it, or correct artifacts_root" in await refused(store)
        with pytest.raises(StoreRefused):
            await store.begin(KEY, "text/plain")


async def test_a_bundle_of_certificates_that_is_none(server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(StoreRefused, match=rf"s3_ca_bundle .*{name}.*name a file of PEM certificates"):
            async with opened("https://127.0.0.1:1", ca_bundle=tmp_path / name):
                pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="nothing to make certificates with")
async def test_tls_and_whom_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=tests", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    with S3Server(tmp_path / "buckets", "--cert", str(pem), "--key", str(key)) as server:
        endpoint = server.endpoint.replace("http:", "https:")
        async with opened(endpoint, ca_bundle=pem) as store:
            await store.put(KEY, b"x", "text/plain")
            assert await content(store, KEY, 0, 1) == b"x"
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(pem))  # the system's
            async with opened(endpoint, attempts=1) as store:
                await store.put(KEY, b"x", "text/plain")
        async with opened(endpoint, attempts=1) as store:
            assert "certificate is not to be trusted" in await refused(store)
            assert "s3_ca_bundle" in await refused(store)
        async with opened(server.endpoint, attempts=1) as store:
            with pytest.raises(PenstockError):
                await store.put(KEY, b"x", "text/plain")


# Answers that rclone does not give, or not when it is told to.


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (refusal(403, "AccessDenied"), StoreRefused, "may not do this in bucket 'tests'.*grant it s3:ListBucket"),
        (refusal(403, "RequestTimeTooSkewed"), StoreRefused, "clock.*set this machine's clock"),
        (
            refusal(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"),
            StoreRefused,
            "bucket 'tests' is in 'eu-west-1'; set s3_region",
        ),
        (refusal(301, "PermanentRedirect"), StoreRefused, "is in another region; set s3_region"),
        (refusal(400, "ExpiredToken"), StoreRefused, "session token is not valid any more"),
        (refusal(400, "KMS.DisabledException", "key k is disabled"), StoreRefused, "key k is disabled.*s3_kms_key"),
        (refusal(400, "EntityTooLarge"), StoreRefused, "no object as large as this"),
        (refusal(400, "NeverHeardOf", "a riddle"), StoreRefused, "NeverHeardOf: a riddle"),
        (refusal(501, "NotImplemented"), StoreRefused, "lacks a call"),
        (refusal(507, "InsufficientStorage"), StoreFull, "store is full"),
        (refusal(403, "QuotaExceeded"), StoreFull, "QuotaExceeded"),
        (refusal(507, "XMinioStorageFull"), StoreFull, "store is full"),
        (refusal(400, "BadDigest"), Unavailable, "other bytes than were sent"),
        (refusal(400, "RequestTimeout"), Unavailable, "does not manage"),
        (refusal(500, "InternalError", "write: no space left on device"), StoreFull, "no space left"),
        (refusal(500, "InternalError"), Unavailable, "InternalError"),
        (refusal(503, "SlowDown"), Unavailable, "SlowDown"),
        (refusal(429, "TooManyRequests"), Unavailable, "TooManyRequests"),
        (Reply(502, "<html>Bad gateway</html>"), Unavailable, "502"),
        (refusal(400, "EntityTooSmall"), ContentMismatch, "cannot put them together"),
        (Reply(0), Unavailable, "connection to the artifacts' store broke"),
    ],
)
async def test_what_a_refusal_means(before: Front, reply: Reply, kind: type[PenstockError], says: str) -> None:
    before.replies.extend([reply] * 5)  # botocore looks for the region itself, aiohttp sends again at once
    async with opened(before.endpoint, region="us-east-1", attempts=1) as store:
        with pytest.raises(kind, match=f"(?s){says}") as told:
            await store.put(KEY, b"x", "text/plain")
    assert type(told.value) is kind
    assert SECRET_KEY not in str(told.value)


@pytest.mark.parametrize("reply", [refusal(503, "SlowDown"), refusal(500, "InternalError"), Reply(0)])
async def test_a_call_that_fails_is_made_again(before: Front, reply: Reply, server: S3Server) -> None:
    async with opened(before.endpoint) as store:
        token, piece = await store.begin(KEY, "text/plain"), os.urandom(FIVE)
        before.replies.extend([reply])
        etag = await store.put_part(KEY, token, 1, 0, memoryview(piece))
        before.replies.extend([reply])
        await store.complete(KEY, token, [Part(1, FIVE, etag)])
        before.replies.extend([reply])
        assert await content(store, KEY, 0, FIVE) == piece
    assert [each.method for each in before.asked] == ["POST", "PUT", "PUT", "POST", "POST", "GET", "GET"]


async def test_so_often_and_no_more(before: Front) -> None:
    before.replies.extend([refusal(503, "SlowDown")] * 10)
    async with opened(before.endpoint, attempts=3) as store:
        with pytest.raises(Unavailable):
            await store.begin(KEY, "text/plain")
    assert len(before.asked) == 3


@pytest.mark.parametrize("reply", [refusal(503, "SlowDown"), refusal(403, "AccessDenied")])
async def test_where_the_shortcut_does_not_lead_to_the_end(before: Front, server: S3Server, reply: Reply) -> None:
    async with opened(before.endpoint, attempts=1) as store:
        before.replies.append(reply)
        for number in range(3):
            await store.put(f"{RUN}/{number}", b"x", "text/plain")
    by_botocore = ["amz-sdk-request" in each.headers for each in before.asked]
    assert by_botocore == [False, True] + [reply.status == 403] * 2
    server.wipe()


async def test_a_read_that_breaks_goes_on_where_it_stood(before: Front, store: Store) -> None:
    whole = os.urandom(3 * MIB)
    await store.put(KEY, whole, "text/plain")
    async with opened(before.endpoint) as fragile:
        before.replies.extend([Reply(cut=MIB + 100), Reply(cut=0), Reply(cut=MIB)])
        assert await content(fragile, KEY, 0, len(whole)) == whole
    asked = [each.headers["range"] for each in before.asked]
    assert asked[:2] == [f"bytes=0-{3 * MIB - 1}", f"bytes={MIB}-{3 * MIB - 1}"]
    assert len(asked) == 4


async def test_a_read_that_does_not_get_on_ends(before: Front, store: Store) -> None:
    await store.put(KEY, bytes(MIB), "text/plain")
    async with opened(before.endpoint) as fragile:
        before.replies.extend([Reply(cut=100)] * 10)
        with pytest.raises(Unavailable, match="broke"):
            await content(fragile, KEY, 0, MIB)
    assert len(before.asked) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, {}),
        ({"encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encryption": "aws:kms", "kms_key": "alias/models"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "alias/models"},
        ),
    ],
)
async def test_encryption_is_asked_for_when_an_object_begins(
    before: Front, options: dict[str, Any], said: dict[str, str]
) -> None:
    async with opened(before.endpoint, **options) as store:
        await store.put(KEY, b"x", "image/png")
        token = await store.begin(KEY, "image/png")
        await store.put_part(KEY, token, 1, 0, b"x")
        await store.abort(KEY, token)
    prefix = "x-amz-server-side-encryption"
    found = [{name: text for name, text in each.headers.items() if name.startswith(prefix)} for each in before.asked]
    assert found == [said, said, {}, {}]
    assert [each.headers.get("content-type") for each in before.asked[:2]] == ["image/png"] * 2


async def test_a_body_goes_out_once_hashed_and_unasked(before: Front) -> None:
    """No second digest, no chunks with trailers, no `Expect`: what a body costs."""
    async with opened(before.endpoint) as store:
        await store.put(KEY, b"weights", "text/plain")
    headers = before.asked[0].headers
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert headers["content-length"] == "7"
    extra = ("expect", "content-md5", "content-encoding", "transfer-encoding", "x-amz-checksum-crc32", "x-amz-trailer")
    assert not [name for name in extra if name in headers]


async def test_of_a_part_there_is_no_second_copy(server: S3Server) -> None:
    """Its pieces are hashed and sent one after the other. Memory is bounded by what they are."""
    pieces = [memoryview(os.urandom(MIB)) for _ in range(16)] + [bytearray(b"x" * 77), b""]
    async with opened(server.endpoint) as store:
        token = await store.begin(KEY, "")
        tracemalloc.start()
        try:
            etag = await store.put_part(KEY, token, 1, 0, *pieces)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 8 * MIB
        size = sum(map(len, pieces))
        await store.complete(KEY, token, [Part(1, size, etag)])
        there = b"".join([chunk async for chunk in store.read(KEY, 0, size)])
    assert hashlib.sha256(there).digest() == hashlib.sha256(b"".join(pieces)).digest()


async def test_many_are_deleted_a_thousand_at_a_time(before: Front, store: Store, server: S3Server) -> None:
    await store.put(KEY, b"x", "text/plain")
    async with opened(before.endpoint) as counted:
        await counted.delete([f"{RUN}/{number}" for number in range(1200)] + [KEY])
    assert [each.method for each in before.asked] == ["POST", "POST"]
    assert server.files == []


@pytest.mark.parametrize("code", ["NotImplemented", "MissingContentMD5"])
async def test_one_by_one_where_the_store_has_no_such_call(
    before: Front, store: Store, server: S3Server, code: str
) -> None:
    for name in ("a", "b"):
        await store.put(f"{RUN}/{name}", b"x", "text/plain")
    before.replies.append(refusal(400, code))
    async with opened(before.endpoint) as simple:
        await simple.delete([f"{RUN}/a", f"{RUN}/b"])
    assert [each.method for each in before.asked] == ["POST", "DELETE", "DELETE"]
    assert server.files == []


async def test_one_of_many_that_is_not_deleted_is_an_error(before: Front) -> None:
    error = "<Error><Key>some/prefix/k</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    before.replies.append(Reply(200, f"<?xml version='1.0'?><DeleteResult>{error}</DeleteResult>"))
    async with opened(before.endpoint) as store:
        with pytest.raises(StoreRefused, match="may not do this"):
            await store.delete(["k", "l"])


def page(key: str, more: str = "", initiated: str = "<Initiated>2026-01-02T03:04:05Z</Initiated>") -> Reply:
    """Of uploads in parts. `more`: where the next begins."""
    upload = f"<Key>{key}</Key><UploadId>{key[-1]}</UploadId>{initiated}"
    listed = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}<Upload>{upload}</Upload>"
    return Reply(200, f"<?xml version='1.0'?><ListMultipartUploadsResult>{listed}</ListMultipartUploadsResult>")


async def test_uploads_are_listed_page_by_page_and_only_ours() -> None:
    more = "<NextKeyMarker>k&amp;1</NextKeyMarker><NextUploadIdMarker>u1</NextUploadIdMarker>"
    with front() as it:
        other = more.replace("u1", "u2")
        it.replies.extend([page(f"{RUN}/a", more), page("backup/of-somebody-else", other), page(f"{RUN}/b")])
        async with opened(it.endpoint, "s3://tests") as store:
            found = await begun(store)
    assert found == [Begun(f"{RUN}/{name}", name, 1767323045000) for name in "ab"]
    asked = [parse_qs(urlsplit(each.path).query, keep_blank_values=True) for each in it.asked]
    assert "key-marker" not in asked[0]
    assert (asked[1]["key-marker"], asked[1]["upload-id-marker"]) == (["k&1"], ["u1"])


@pytest.mark.parametrize(
    ("more", "pages"),
    [(" ", 1), ("<NextUploadIdMarker>u</NextUploadIdMarker>", 2), ("<NextKeyMarker>k</NextKeyMarker>", 2)],
)
async def test_a_list_that_says_there_is_more_and_not_where_ends(more: str, pages: int) -> None:
    with front() as it:
        it.replies.extend([page(f"{RUN}/a", more)] * 5)
        async with opened(it.endpoint, "s3://tests") as store:
            assert len(await begun(store)) == pages
    assert len(it.asked) == pages


async def test_a_list_that_lacks_something_is_refused() -> None:
    with front() as it:
        it.replies.append(page(f"{RUN}/a", initiated=""))
        async with opened(it.endpoint, "s3://tests") as store:
            with pytest.raises(StoreRefused, match="its answer has no 'Initiated'"):
                await begun(store)


# Addresses.


def fetch(method: str, address: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
    """As a client does it that has no credentials."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request(method, f"{parts.path}?{parts.query}", body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers.get("ETag", "")
    finally:
        connection.close()


async def test_signed_addresses_take_parts_and_give_objects(store: Store) -> None:
    token, piece = await store.begin(KEY, "text/plain"), os.urandom(FIVE)
    address = await store.sign_part(KEY, token, 1, 600)
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["600"]
    digest = base64.b64encode(hashlib.md5(piece).digest()).decode()
    status, _, etag = await asyncio.to_thread(fetch, "PUT", address, piece, **{"Content-MD5": digest})
    assert status == 200
    await store.complete(KEY, token, [Part(1, FIVE, etag)])
    status, body, _ = await asyncio.to_thread(fetch, "GET", await store.sign_read(KEY, 600))
    assert (status, body) == (200, piece)
    other = (await store.sign_read(KEY, 600)).replace("best.pt", "worst.pt")
    assert (await asyncio.to_thread(fetch, "GET", other))[0] == 403


async def test_a_part_that_is_not_what_its_digest_says_is_refused(store: Store) -> None:
    token = await store.begin(KEY, "text/plain")
    address = await store.sign_part(KEY, token, 1, 600)
    digest = base64.b64encode(hashlib.md5(b"something else").digest()).decode()
    assert (await asyncio.to_thread(fetch, "PUT", address, b"x" * 1000, **{"Content-MD5": digest}))[0] == 400
    await store.abort(KEY, token)


@pytest.mark.parametrize(
    ("endpoint", "addressing", "where"),
    [
        (None, "auto", "https://tests.s3.eu-west-1.amazonaws.com/some/prefix/"),
        (None, "virtual", "https://tests.s3.eu-west-1.amazonaws.com/some/prefix/"),
        (None, "path", "https://s3.eu-west-1.amazonaws.com/tests/some/prefix/"),
        ("https://s3.example.com", "auto", "https://s3.example.com/tests/some/prefix/"),
        ("http://minio:9000", "auto", "http://minio:9000/tests/some/prefix/"),
        ("https://s3.example.com", "virtual", "https://tests.s3.example.com/some/prefix/"),
        ("http://10.0.0.1:9000", "virtual", "http://10.0.0.1:9000/tests/some/prefix/"),
    ],
)
async def test_where_the_bucket_stands_in_an_address(endpoint: Any, addressing: Any, where: str) -> None:
    async with opened(endpoint, addressing=addressing, region="eu-west-1") as store:
        assert (await store.sign_read(KEY, 60)).startswith(f"{where}{KEY}?")


async def test_an_endpoint_from_the_environment_is_addressed_as_one_of_ours(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://minio:9000")
    async with opened(None, region="eu-west-1") as store:
        assert (await store.sign_read(KEY, 60)).startswith(f"http://minio:9000/tests/some/prefix/{KEY}?")


def test_who_has_a_directory_does_not_load_what_s3_needs() -> None:
    code = "import sys, penstock_server.blobs; sys.exit('aiobotocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60).returncode == 0
