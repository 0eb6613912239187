"""Artifacts over the wire, by server processes: streams, limits, who shares a database, who is killed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from penstock.v1 import artifacts_pb2 as pb
from penstock.v1 import runs_pb2 as ru
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from servers import ServerProcess

MIB = 1 << 20
PART = 8 * MIB


def new_run(channel: grpc.Channel) -> str:
    return RunServiceStub(channel).CreateRun(ru.CreateRunRequest()).run.run_id


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def chunks(data: bytes, chunk: int = MIB, **header: Any) -> Iterator[pb.UploadArtifactRequest]:
    """An upload as a client sends it."""
    yield pb.UploadArtifactRequest(header=pb.UploadHeader(**{"size": len(data)} | header))
    for start in range(header.get("offset", 0), len(data), chunk):
        yield pb.UploadArtifactRequest(chunk=data[start : start + chunk])
    yield pb.UploadArtifactRequest(trailer=pb.UploadTrailer(sha256=sha256(data)))


def upload(channel: grpc.Channel, data: bytes, **fields: Any) -> pb.Artifact:
    return ArtifactServiceStub(channel).UploadArtifact(chunks(data, **fields), timeout=60).artifact


def download(channel: grpc.Channel, run_id: str, path: str, **fields: Any) -> bytes:
    request = pb.DownloadArtifactRequest(run_id=run_id, path=path, **fields)
    first, *others = ArtifactServiceStub(channel).DownloadArtifact(request, timeout=60)
    assert first.artifact.path == path
    assert all(len(each.chunk) <= MIB for each in others)
    return b"".join(each.chunk for each in others)


class Held:
    """An upload that stands still after some of its bytes, until it is let go on or cut."""

    def __init__(self, channel: grpc.Channel, data: bytes, sent: int, **header: Any) -> None:
        self._go = threading.Event()
        self.taken = threading.Event()
        self._data = data
        self._sent = sent
        self._header = header
        self.call = ArtifactServiceStub(channel).UploadArtifact.future(self._messages())

    def _messages(self) -> Iterator[pb.UploadArtifactRequest]:
        for message in chunks(self._data, **self._header):
            if message.HasField("chunk"):
                if self._sent == 0:
                    self.taken.set()
                    self._go.wait(60)
                self._sent -= len(message.chunk)
            yield message

    def go(self) -> None:
        self._go.set()

    def cut(self) -> None:
        self.call.cancel()
        self._go.set()


def stored(channel: grpc.Channel, run_id: str, path: str, size: int, parts: int) -> pb.BeginUploadResponse:
    """Waits until so many parts of an upload that broke off are offered."""
    deadline = time.monotonic() + 30
    while True:
        request = pb.BeginUploadRequest(run_id=run_id, path=path, size=size)
        plan = ArtifactServiceStub(channel).BeginUpload(request)
        if len(plan.parts) >= parts:
            return plan
        assert time.monotonic() < deadline, plan
        time.sleep(0.05)


def test_there_and_back(channel: grpc.Channel) -> None:
    run_id, data = new_run(channel), os.urandom(2 * PART + 77)
    made = upload(channel, data, run_id=run_id, path="models/größe.pt", chunk=3 * MIB + 1)
    assert (made.size, made.sha256, made.is_directory) == (len(data), sha256(data), False)
    assert abs(made.update_time_ms / 1000 - time.time()) < 60
    assert download(channel, run_id, "models/größe.pt") == data
    assert download(channel, run_id, "models/größe.pt", offset=PART - 3, length=9) == data[PART - 3 : PART + 6]
    stub = ArtifactServiceStub(channel)
    listed = stub.ListArtifacts(pb.ListArtifactsRequest(run_id=run_id)).artifacts
    assert [(each.path, each.is_directory) for each in listed] == [("models", True)]
    listed = stub.ListArtifacts(pb.ListArtifactsRequest(run_id=run_id, recursive=True)).artifacts
    assert list(listed) == [made]
    assert stub.StatArtifact(pb.StatArtifactRequest(run_id=run_id, path="models/größe.pt")).artifact == made
    located = stub.LocateArtifact(pb.LocateArtifactRequest(run_id=run_id, path="models/größe.pt"))
    assert (located.route, located.url, located.uri) == (pb.ARTIFACT_ROUTE_SERVER, "", "")
    assert stub.DeleteArtifact(pb.DeleteArtifactRequest(run_id=run_id, path="models")).deleted == 1
    assert not stub.ListArtifacts(pb.ListArtifactsRequest(run_id=run_id)).artifacts


def test_what_is_there_already_is_not_taken_again(channel: grpc.Channel) -> None:
    run_id, data = new_run(channel), os.urandom(PART)
    made = upload(channel, data, run_id=run_id, path="a")
    held = Held(channel, data, 0, run_id=run_id, path="a", sha256=sha256(data))
    assert held.call.result(timeout=30).artifact == made
    held.go()


def test_whose_stream_is_cut_goes_on_after_the_last_part(channel: grpc.Channel, server: ServerProcess) -> None:
    run_id, data = new_run(channel), os.urandom(4 * PART)
    began = ArtifactServiceStub(channel).BeginUpload(pb.BeginUploadRequest(run_id=run_id, path="a", size=len(data)))
    held = Held(channel, data, 3 * PART, run_id=run_id, path="a", upload_id=began.upload_id)
    assert held.taken.wait(30)
    time.sleep(0.5)  # some are stored, and it is no matter how many
    held.cut()
    plan = stored(channel, run_id, "a", len(data), 1)
    assert plan.upload_id == began.upload_id
    assert [part.prefix_sha256 for part in plan.parts] == [sha256(data[: part.number * PART]) for part in plan.parts]
    offset = sum(part.size for part in plan.parts)
    upload(channel, data, run_id=run_id, path="a", upload_id=plan.upload_id, offset=offset)
    assert download(channel, run_id, "a") == data


def test_also_after_the_server_was_killed(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    data = os.urandom(4 * PART)
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run_id = new_run(channel)
            request = pb.BeginUploadRequest(run_id=run_id, path="a", size=len(data))
            upload_id = ArtifactServiceStub(channel).BeginUpload(request).upload_id
            held = Held(channel, data, 3 * PART, run_id=run_id, path="a", upload_id=upload_id)
            assert held.taken.wait(30)
            request.upload_id = upload_id
            deadline = time.monotonic() + 30
            while not ArtifactServiceStub(channel).BeginUpload(request).parts:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            server.kill()
            assert held.call.code() is grpc.StatusCode.UNAVAILABLE
            held.go()
        server.start().wait_ready()
        with server.channel() as channel:
            plan = ArtifactServiceStub(channel).BeginUpload(request)
            assert plan.upload_id == upload_id
            assert plan.parts
            offset = len(plan.parts) * PART
            with pytest.raises(grpc.RpcError):
                download(channel, run_id, "a")
            upload(channel, data, run_id=run_id, path="a", upload_id=upload_id, offset=offset)
            assert download(channel, run_id, "a") == data
        assert server.stop() == 0
    postgres.drop(dsn)


def test_a_server_that_stops_does_not_wait_for_uploads(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            held = Held(channel, os.urandom(3 * PART), 2 * PART, run_id=new_run(channel), path="a")
            assert held.taken.wait(30)
            assert server.stop(20) == 0
            held.cut()
        assert "Traceback" not in server.log
    postgres.drop(dsn)


def test_messages_of_the_smallest_limit(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    data = os.urandom(3 * MIB)
    with ServerProcess(data_dir, "--max-message-bytes", str(MIB), dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run_id = new_run(channel)
            upload(channel, data, run_id=run_id, path="a", chunk=MIB // 2)
            assert download(channel, run_id, "a") == data
    postgres.drop(dsn)


def test_who_is_not_read_from_waits(postgres: Any, data_dir: Path) -> None:
    """Many uploads that stand still take no more room than the server has for all of them."""
    dsn = postgres.create(template="penstock_template")
    data = os.urandom(6 * PART)
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run_id = new_run(channel)
            upload(channel, data, run_id=run_id, path="warm")
            before = psutil.Process(server.pid).memory_info().rss
            # Each has a part that is not full, and the room for it: there is none for the others, on the same line.
            held = [Held(channel, data, PART // 2, run_id=run_id, path=f"f{n}") for n in range(12)]
            deadline = time.monotonic() + 30
            while sum(each.taken.is_set() for each in held) < 8:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for each in held:
                each.go()
            most = 0
            while not all(each.call.done() for each in held):
                assert time.monotonic() < deadline + 60
                most = max(most, psutil.Process(server.pid).memory_info().rss)
                time.sleep(0.01)
            for n, each in enumerate(held):
                assert each.call.result().artifact.path == f"f{n}"
            assert most - before < 250 * MIB
    postgres.drop(dsn)


def test_a_server_for_artifacts_only_beside_one_for_all(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    root = ("--artifacts-root", str(data_dir.parent / "artifacts"))
    with (
        ServerProcess(data_dir, *root, dsn=dsn) as tracking,
        ServerProcess(data_dir.parent / "second", *root, "--artifacts-only", dsn=dsn) as only,
    ):
        tracking.start()
        only.start().wait_ready()
        tracking.wait_ready()
        with tracking.channel() as to_tracking, only.channel() as to_only:
            run_id, data = new_run(to_tracking), os.urandom(PART + 1)
            upload(to_only, data, run_id=run_id, path="a")
            assert download(to_tracking, run_id, "a") == data
            with pytest.raises(grpc.RpcError) as caught:
                new_run(to_only)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            http = f"http://{only.http_address}/api/2.0"  # MLflow's
            with urllib.request.urlopen(f"{http}/mlflow-artifacts/artifacts/0/{run_id}/artifacts/a") as answer:
                assert answer.read() == data
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{http}/mlflow/experiments/get?experiment_id=0")
        assert only.stop() == 0
        assert tracking.stop() == 0
    postgres.drop(dsn)


def test_straight_to_the_directory(postgres: Any, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(data_dir, "--artifacts-mode", "direct", dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run_id, data = new_run(channel), os.urandom(100)
            stub = ArtifactServiceStub(channel)
            plan = stub.BeginUpload(pb.BeginUploadRequest(run_id=run_id, path="b/ä", size=100))
            assert plan.route == pb.ARTIFACT_ROUTE_FILE
            assert plan.file_uri.startswith((data_dir / "artifacts").as_uri())
            Path(plan.file_uri.removeprefix("file://")).write_bytes(data)
            done = pb.CompleteUploadRequest(run_id=run_id, upload_id=plan.upload_id, sha256=sha256(data))
            assert stub.CompleteUpload(done).artifact.path == "b/ä"
            assert download(channel, run_id, "b/ä") == data
            located = stub.LocateArtifact(pb.LocateArtifactRequest(run_id=run_id, path="b/ä"))
            assert located.route == pb.ARTIFACT_ROUTE_FILE
            assert located.url == located.uri
            assert located.url.endswith("/artifacts/b/%C3%A4")
    postgres.drop(dsn)


def test_what_is_measured(channel: grpc.Channel, server: ServerProcess) -> None:
    run_id = new_run(channel)
    upload(channel, b"12345", run_id=run_id, path="a")
    with pytest.raises(grpc.RpcError):
        upload(channel, b"12345", run_id=run_id, path="a", size=6)
    page = server.get("/metrics")[1]
    for line in (
        'penstock_artifact_uploads_total{outcome="stored"}',
        'penstock_artifact_uploads_total{outcome="mismatch"}',
        'penstock_artifact_bytes_total{direction="in"}',
        "penstock_artifact_buffer_bytes 0",
    ):
        assert line in page
