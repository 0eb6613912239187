"""Artifacts in S3, or in what speaks it. The one place that knows aiobotocore; README.md says how stores differ."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import get_session
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from botocore import exceptions
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.awsrequest import AWSRequest

from penstock_server.blobs.s3_errors import Answer, meaning, shortened
from penstock_server.blobs.store import Begun, Bytes, Digest, Object, S3Options
from penstock_server.model.artifacts import MIB, Part, S3Root
from penstock_server.model.errors import Busy, NotFound, PenstockError, StoreRefused, Unavailable, UploadGone

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 60.0
_AWAY_SECONDS = 2.0
# Of a read's connection, which is held for as long as its reader takes.
_WAIT_SECONDS = 30.0
_DELETES_MOST = 1000
_PUTS_AT_ONCE = 16  # of one request
_HASHED_AT_ONCE = 64 * 1024
_CORRECT = "correct the s3_ settings, or AWS's configuration on this machine"
_ENCRYPTION = {
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
}
_MARKERS = ("KeyMarker", "UploadIdMarker")
# A bucket without a prefix may have uploads of others in it, which are not ours to give up.
_OURS = re.compile(r"(\d+/[0-9a-f]{32}/(artifacts|versions)|\.penstock-doctor)/")


class S3Store:
    """A bucket. See `store.Store`."""

    def __init__(
        self, root: S3Root, options: S3Options, session: Any, client: Any, closing: contextlib.AsyncExitStack
    ) -> None:
        self._root = root
        self._client = client
        self._closing = closing
        self._readers = asyncio.Semaphore(options.connections // 2)
        self._many = asyncio.Semaphore(options.connections // 3)  # that readers and others need not wait for so many
        self._encryption: dict[str, str] = {}
        if options.encryption is not None:
            self._encryption["ServerSideEncryption"] = options.encryption
        if options.kms_key is not None:
            self._encryption["SSEKMSKeyId"] = options.kms_key
        headers = {_ENCRYPTION[name]: value for name, value in self._encryption.items()}
        self._shortcut = _Shortcut(session, client, root, headers)

    @classmethod
    async def open(cls, root: S3Root, options: S3Options) -> S3Store:
        """Makes ready, and calls nobody yet. Raises StoreRefused when there is something wrong on our side."""
        config = AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": options.addressing},
            retries={"mode": "standard", "total_max_attempts": options.attempts},
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=options.connections,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            parameter_validation=False,  # which knows bytes only, and costs a tenth of a call
            user_agent="penstock",  # its own is put together for each call anew, which costs another
            http_session_cls=_Session,
        )
        session, closing = get_session(), contextlib.AsyncExitStack()
        with _translated(root, ""):
            _check_bundle(options.ca_bundle)
            client = await closing.enter_async_context(
                session.create_client(
                    "s3",
                    endpoint_url=options.endpoint,
                    region_name=options.region,
                    verify=str(options.ca_bundle) if options.ca_bundle else None,
                    config=config,
                )
            )
        if options.addressing == "auto":
            # Where requests go is settled by now. Addresses at AWS would be of no region, and answer with a redirect.
            client.meta.config.s3["addressing_style"] = "virtual"
        for call in ("PutObject", "UploadPart"):
            client.meta.events.register_first(f"choose-signer.s3.{call}", _choose_signer)
        return cls(root, options, session, client, closing)

    async def close(self) -> None:
        """Lets go of connections. May be called again."""
        await self._closing.aclose()

    async def reach(self) -> float:
        """Lists an object, if there is one. Returns by how many seconds the store's clock is ahead of ours."""
        with _translated(self._root, ""):
            before = time.time()
            answer = await self._client.list_objects_v2(Bucket=self._root.bucket, Prefix=self._root.key(""), MaxKeys=1)
            ours = (before + time.time()) / 2
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            return parsedate_to_datetime(date).timestamp() - ours if date else 0.0

    def uri(self, key: str) -> str:
        """As s3://bucket/key."""
        return self._root.uri(key)

    async def put(self, key: str, data: Bytes, media_type: str) -> None:
        """By PutObject."""
        with _translated(self._root, key):
            body = await _Body.of(data)
            if not await self._shortcut.put(self._root.key(key), body, media_type):
                await self._client.put_object(**self._at(key), Body=body, ContentType=media_type, **self._encryption)

    async def put_all(self, objects: Sequence[Object]) -> list[PenstockError | None]:
        """Some at once."""
        errors: list[PenstockError | None] = [None] * len(objects)
        waiting = iter(enumerate(objects))

        async def put() -> None:
            for at, each in waiting:
                async with self._many:
                    try:
                        await self.put(*each)
                    except PenstockError as error:
                        errors[at] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(_PUTS_AT_ONCE, len(objects))):
                group.create_task(put())
        return errors

    async def begin(self, key: str, media_type: str) -> str:
        """By CreateMultipartUpload: the token is its UploadId."""
        with _translated(self._root, key):
            answer = await self._client.create_multipart_upload(
                **self._at(key), ContentType=media_type, **self._encryption
            )
            return str(answer["UploadId"])

    async def put_part(self, key: str, token: str, number: int, offset: int, *data: Bytes) -> str:
        """By UploadPart."""
        with _translated(self._root, key):
            answer = await self._client.upload_part(
                **self._at(key), UploadId=token, PartNumber=number, Body=await _Body.of(*data)
            )
            return str(answer["ETag"])

    async def complete(self, key: str, token: str, parts: Sequence[Part]) -> None:
        """By CompleteMultipartUpload."""
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _translated(self._root, key):
            await self._client.complete_multipart_upload(
                **self._at(key), UploadId=token, MultipartUpload={"Parts": listed}
            )

    async def abort(self, key: str, token: str) -> None:
        """By AbortMultipartUpload."""
        with contextlib.suppress(UploadGone, NotFound), _translated(self._root, key):
            await self._client.abort_multipart_upload(**self._at(key), UploadId=token)

    async def read(self, key: str, start: int, length: int) -> AsyncIterator[bytes]:
        """By one GetObject; by another from where it broke off, should it break."""
        end, attempts = start + length, 0
        await self._enter_readers()
        try:
            while start < end:
                try:
                    async with contextlib.aclosing(self._get(key, start, end)) as chunks:
                        async for chunk in chunks:
                            start, attempts = start + len(chunk), 0
                            yield chunk
                except Unavailable:
                    attempts += 1
                    if attempts == 3:
                        raise
        finally:
            self._readers.release()

    async def _get(self, key: str, start: int, end: int) -> AsyncGenerator[bytes]:
        with _translated(self._root, key):
            answer = await self._client.get_object(**self._at(key), Range=f"bytes={start}-{end - 1}")
            body = answer["Body"]
            async with body:
                gathered, size = [], 0
                while data := await body.read(MIB - size):
                    gathered.append(data)
                    size += len(data)
                    if size == MIB:
                        yield b"".join(gathered)
                        gathered, size = [], 0
                        start += MIB
                if gathered:
                    yield b"".join(gathered)
                if start + size < end:
                    raise shortened(key)

    async def _enter_readers(self) -> None:
        try:
            await asyncio.wait_for(self._readers.acquire(), _WAIT_SECONDS)
        except TimeoutError:
            raise Busy("as many downloads run as there are connections to the artifacts' store", 5.0) from None

    async def hash(self, key: str, digest: Digest, start: int, end: int, token: str | None = None) -> int:
        """A chunk is hashed while the next one is read. Of an upload there is nothing to be read."""
        del token
        loop = asyncio.get_running_loop()
        hashing: asyncio.Future[None] | None = None
        async with contextlib.aclosing(self.read(key, start, end - start)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if hashing is not None:
                    await hashing
                hashing = loop.run_in_executor(None, digest.update, chunk)
                start += len(chunk)
        if hashing is not None:
            await hashing
        return start

    async def size(self, key: str) -> int | None:
        """By HeadObject."""
        try:
            with _translated(self._root, key):
                return int((await self._client.head_object(**self._at(key)))["ContentLength"])
        except NotFound:
            return None

    async def delete(self, keys: Sequence[str]) -> None:
        """By DeleteObjects, a thousand at a time; one by one where the store has no such call."""
        for first in range(0, len(keys), _DELETES_MOST):
            batch = keys[first : first + _DELETES_MOST]
            if len(batch) == 1 or not await self._delete_batch(batch):
                for key in batch:
                    with contextlib.suppress(NotFound), _translated(self._root, key):
                        await self._client.delete_object(**self._at(key))

    async def _delete_batch(self, keys: Sequence[str]) -> bool:
        listed = [{"Key": self._root.key(key)} for key in keys]
        try:
            with _translated(self._root, keys[0]):
                answer = await self._client.delete_objects(
                    Bucket=self._root.bucket, Delete={"Objects": listed, "Quiet": True}
                )
        except StoreRefused:
            return False  # where it is about more than this call, deleting one will say so
        for error in answer.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                said = Answer(error.get("Code", ""), 200, error.get("Message", ""))
                raise meaning(said, self._root.bucket, error.get("Key", ""))
        return True

    async def begun(self) -> AsyncIterator[Begun]:
        """By ListMultipartUploads: those of keys that we make."""
        prefix = self._root.key("")
        more: dict[str, str] = {}
        while True:
            try:
                with _translated(self._root, prefix):
                    answer = await self._client.list_multipart_uploads(Bucket=self._root.bucket, Prefix=prefix, **more)
                    found = [
                        Begun(key, upload["UploadId"], int(upload["Initiated"].timestamp() * 1000))
                        for upload in answer.get("Uploads", ())
                        if _OURS.match(key := upload["Key"].removeprefix(prefix))
                    ]
            except UploadGone:
                return  # what rclone says where it has none at all
            for each in found:
                yield each
            markers = {name: answer[f"Next{name}"] for name in _MARKERS if answer.get(f"Next{name}")}
            if not answer.get("IsTruncated") or markers in ({}, more):  # some say that there is more, and not where
                return
            more = markers

    def file_uri(self, token: str) -> None:
        """There is none."""

    async def sign_part(self, key: str, token: str, number: int, seconds: int) -> str:
        """A presigned UploadPart: encryption was said at its beginning."""
        return await self._sign("upload_part", key, seconds, UploadId=token, PartNumber=number)

    async def sign_read(self, key: str, seconds: int) -> str:
        """A presigned GetObject."""
        return await self._sign("get_object", key, seconds)

    async def _sign(self, call: str, key: str, seconds: int, **params: object) -> str:
        with _translated(self._root, key):
            return str(await self._client.generate_presigned_url(call, self._at(key) | params, ExpiresIn=seconds))

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._root.bucket, "Key": self._root.key(key)}


class _Body(Payload):
    """Bytes as the body of a request, hashed and sent piece by piece as they lie in memory.

    botocore takes it for a stream that can be sent again, but for none that it could read: of such a one it would ask
    the store first whether it may come, and aiohttp would read it in threads, 64 KiB at a time.
    Its digest is signed with it, so that a store that looks at it (rclone does not) keeps nothing else.
    """

    def __init__(self, pieces: Sequence[Bytes], sha256: str) -> None:
        super().__init__(pieces, content_type="application/octet-stream")
        self._size = sum(map(len, pieces))
        self.sha256 = sha256

    @classmethod
    async def of(cls, *data: Bytes) -> _Body:
        """Hashes them, in a thread where that takes long."""

        def make() -> _Body:
            digest = sha256()
            for piece in data:
                digest.update(piece)
            return cls(data, digest.hexdigest())

        return make() if sum(map(len, data)) <= _HASHED_AT_ONCE else await asyncio.to_thread(make)

    def __len__(self) -> int:
        return self._size or 0

    def seek(self, offset: int) -> None:
        """To be sent again: nothing to do."""

    async def write(self, writer: AbstractStreamWriter) -> None:
        for piece in self._value:
            for start in range(0, len(piece), MIB):
                # A copy: what a cancelled call has not sent yet goes out when its buffer has other bytes in it already.
                data = bytes(memoryview(piece)[start : start + MIB])
                async with asyncio.timeout(_READ_SECONDS):  # aiohttp would wait for a store that takes nothing for ever
                    await writer.write(data)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)


class _Shortcut:
    """PutObject for many small files: what botocore does about a call takes thrice as long as signing and sending it.

    Tries once. Whatever does not go well is left to botocore, which knows about retries, redirects and errors.
    """

    def __init__(self, session: Any, client: Any, root: S3Root, encryption: Mapping[str, str]) -> None:
        self._session = session
        self._client = client
        self._bucket = root.bucket
        self._encryption = encryption
        self._address = ""
        self._region = ""
        self._usable = True

    async def put(self, key: str, body: _Body, media_type: str) -> bool:
        """Whether it is there now."""
        if not self._usable or len(body) > MIB:
            return False
        try:
            if not self._address:
                await self._learn()
            credentials = await (await self._session.get_credentials()).get_frozen_credentials()
            headers = {"Content-Type": media_type, **self._encryption}
            request = AWSRequest("PUT", self._address + quote(key, safe="/~"), headers, body)
            _Signer(credentials, "s3", self._region).add_auth(request)
            answer = await self._client._endpoint.http_session.send(request.prepare())
        except exceptions.BotoCoreError:
            return False
        self._usable = not 300 <= answer.status_code < 500
        return bool(answer.status_code == 200)

    async def _learn(self) -> None:
        """Where the bucket stands, and in which region, from an address that botocore makes."""
        address = await self._client.generate_presigned_url("put_object", {"Bucket": self._bucket, "Key": "-"})
        parts = urlsplit(address)
        self._region = parse_qs(parts.query)["X-Amz-Credential"][0].split("/")[2]
        self._address = f"{parts.scheme}://{parts.netloc}{parts.path[:-1]}"


class _Signer(S3SigV4Auth):  # type: ignore[misc]
    """Knows the digest of a body already."""

    NAME = "penstock-s3v4"

    def payload(self, request: Any) -> str:
        return request.body.sha256 if isinstance(request.body, _Body) else str(super().payload(request))


AUTH_TYPE_MAPS[_Signer.NAME] = _Signer


def _choose_signer(signature_version: str, **_: object) -> str | None:
    return _Signer.NAME if signature_version == "s3v4" else None  # presigned addresses have another


class _Session(AIOHTTPSession):  # type: ignore[misc]
    """Trusts the system's certificates beside those it was told, or came with."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.load_default_certs()
        return context


def _check_bundle(path: Path | None) -> None:
    try:
        if path is not None:
            ssl.create_default_context(cafile=str(path))
    except OSError as error:
        raise StoreRefused(
            f"s3_ca_bundle {path}: {error.strerror or error}", "name a file of PEM certificates"
        ) from None


@contextlib.contextmanager
def _translated(root: S3Root, key: str) -> Iterator[None]:
    """Whatever botocore, aiohttp or the network raise inside leaves as an error of model.errors."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _answer(error, root, key) from None
    except (exceptions.BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise _failure(error) from error
    except KeyError as error:
        raise StoreRefused(f"its answer has no {error}, as S3's would", _CORRECT) from error


def _answer(error: exceptions.ClientError, root: S3Root, key: str) -> PenstockError:
    said, metadata = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    region = said.get("Region") or metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
    status = metadata.get("HTTPStatusCode", 500)
    code = said.get("Code", str(status))
    if code == "404":  # to HEAD: the bucket may be missing as well, which the next call will say
        code = "NoSuchKey"
    return meaning(Answer(code, status, said.get("Message", ""), region), root.bucket, key)


def _failure(error: Exception) -> PenstockError:
    """Of a call that had no answer."""
    match error:
        case exceptions.NoCredentialsError():
            return StoreRefused(
                "no credentials were found",
                "give the server's process AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role",
            )
        case (
            exceptions.PartialCredentialsError() | exceptions.CredentialRetrievalError() | exceptions.ProfileNotFound()
        ):
            return StoreRefused(str(error), "mend the profile or the environment that the server's process sees")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return StoreRefused(
                f"its certificate is not to be trusted ({_cause(error)})",
                "set s3_ca_bundle to the certificate of who signed it, or correct s3_endpoint",
            )
        case exceptions.SSLError():
            return StoreRefused(
                f"it does not speak TLS as we do ({_cause(error)})", "correct s3_endpoint: is it http://?"
            )
        case (
            exceptions.EndpointConnectionError() | exceptions.ConnectTimeoutError() | exceptions.ProxyConnectionError()
        ):
            return Unavailable(f"the artifacts' store is not to be reached ({_cause(error)})", _AWAY_SECONDS)
        case exceptions.HTTPClientError() | aiohttp.ClientError() | TimeoutError() | ConnectionError():
            return Unavailable(f"the connection to the artifacts' store broke ({_cause(error)})", _AWAY_SECONDS)
    return StoreRefused(str(error)[:300], _CORRECT)


def _cause(error: Exception) -> object:
    """What botocore has wrapped: it says a whole URL, which says nothing more."""
    return getattr(error, "kwargs", {}).get("error") or str(error) or type(error).__name__
