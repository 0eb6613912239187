"""One who looks at a run's artifacts all the time, and writes down what he should not have seen."""

from __future__ import annotations

import hashlib
import random
import threading
import time

import grpc

from artifacts.ledger import Ledger
from penstock.v1 import artifacts_pb2 as ar
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub

_SECONDS = 30
_PAUSE = 0.1
# The server is away, the store is, or what was asked for has just been replaced: it is said, and no bytes are wrong.
_HONEST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


class Onlooker:
    """Of one run, by way of one server. Looks from its start until `close`."""

    def __init__(self, address: str, run_id: str, ledger: Ledger, seed: int = 0) -> None:
        self.problems: list[str] = []
        self.looks = 0
        self.downloads = 0  # that came to their end
        self.bytes = 0
        self.errors = 0
        self._channel = grpc.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)]
        )
        self._stub = ArtifactServiceStub(self._channel)
        self._run_id = run_id
        self._ledger = ledger
        self._chance = random.Random(seed)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look, name="onlooker", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Looks once more, and no more. May be called again."""
        self._ends.set()
        self._thread.join(2 * _SECONDS)
        assert not self._thread.is_alive(), "an onlooker hangs"
        self._channel.close()

    def _look(self) -> None:
        while True:
            last = self._ends.is_set()
            try:
                self._round()
            except grpc.RpcError as error:
                self.errors += 1
                if error.code() not in _HONEST:
                    self.problems.append(f"an onlooker was told {error.code().name}: {error.details()}")
            except Exception as error:  # noqa: BLE001 it is a test's thread: whoever closes it tells
                self.problems.append(f"an onlooker died: {error!r}")
                return
            if last:
                return
            self._ends.wait(_PAUSE)

    def _round(self) -> None:
        since = time.monotonic()
        asked = ar.ListArtifactsRequest(run_id=self._run_id, recursive=True, page_size=50_000)
        listed = list(self._stub.ListArtifacts(asked, timeout=_SECONDS).artifacts)
        until = time.monotonic()
        self.looks += 1
        for each in listed:
            self._check(each, since, until)
        if missing := self._ledger.must(since) - {each.path for each in listed}:
            self.problems.append(f"uploaded, and not in the list: {sorted(missing)}")
        if listed:
            path = self._chance.choice(listed).path
            self._stat(path)
            self._download(path)

    def _stat(self, path: str) -> None:
        since = time.monotonic()
        found = self._stub.StatArtifact(ar.StatArtifactRequest(run_id=self._run_id, path=path), timeout=_SECONDS)
        self._check(found.artifact, since, time.monotonic())

    def _download(self, path: str) -> None:
        """In one, or in two ranges of what was there at first."""
        since = time.monotonic()
        parts = self._chance.choice((1, 1, 2))
        asked = ar.DownloadArtifactRequest(run_id=self._run_id, path=path)
        stream = self._stub.DownloadArtifact(asked, timeout=_SECONDS)
        try:
            whole = next(stream).artifact
            self._check(whole, since, time.monotonic())
            cut = whole.size if parts == 1 else self._chance.randrange(whole.size + 1)
            digest, size = hashlib.sha256(), 0
            while size < cut:
                if (message := next(stream, None)) is None:
                    self.problems.append(f"{path}: a download of {whole.size} bytes ended well after {size}")
                    return
                piece = message.chunk[: cut - size]
                digest.update(piece)
                size += len(piece)
            if parts == 1 and next(stream, None) is not None:
                self.problems.append(f"{path}: a download has more than {whole.size} bytes")
        finally:
            stream.cancel()
        if size < whole.size:
            size += self._range(whole, cut, digest)
        if size != whole.size or digest.digest() != whole.sha256:
            self.problems.append(f"{path}: {size} bytes that are not those of its digest, of {whole.size}")
            return
        self.downloads += 1
        self.bytes += size

    def _range(self, whole: ar.Artifact, offset: int, digest: hashlib._Hash) -> int:
        asked = ar.DownloadArtifactRequest(run_id=self._run_id, path=whole.path, offset=offset, sha256=whole.sha256)
        size = 0
        for message in self._stub.DownloadArtifact(asked, timeout=_SECONDS):
            digest.update(message.chunk)
            size += len(message.chunk)
        return size

    def _check(self, found: ar.Artifact, since: float, until: float) -> None:
        if wrong := self._ledger.wrong(found.path, found.sha256, found.size, since, until):
            self.problems.append(wrong)
