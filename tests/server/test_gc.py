"""`penstock-server gc`: what it says, what it removes, beside a server and without one, and who comes late."""

from __future__ import annotations

import asyncio
import hashlib
from argparse import ArgumentTypeError
from pathlib import Path

import asyncpg
import grpc
import pytest
from writers import Conversation

from penstock.v1 import artifacts_pb2 as ar
from penstock.v1 import metrics_pb2 as me
from penstock.v1 import runs_pb2 as ru
from penstock.v1.artifacts_pb2_grpc import ArtifactServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from penstock_server.cli import _age
from penstock_server.postgres.embedded import Embedded
from servers import ServerProcess, command

NOTHING = "to remove: 0 runs and 0 experiments, with 0 points and 0 files of 0 bytes\n"


def gc(data_dir: Path, *arguments: str, dsn: str | None = None) -> tuple[int, str, str]:
    env = {"PENSTOCK_DATABASE_URL": dsn} if dsn else {}
    return command("gc", "--data-dir", str(data_dir), *arguments, env=env)


def age(dsn: str) -> None:
    """Two months pass."""

    async def update() -> None:
        conn = await asyncpg.connect(dsn)
        await conn.execute("UPDATE runs SET deleted_ms = deleted_ms - 60::bigint * 86400000")
        await conn.close()

    asyncio.run(update())


def fill(channel: grpc.Channel, run_id: str) -> bytes:
    """Gives a run three points and a file of 2,000 bytes. Returns the writer's id."""
    create = ru.CreateRunRequest(name="of the spool")
    writer = Conversation(channel, run_id, create_run=create)
    writer.hear_until("welcome")
    writer.first([1, 2, 3]).say(finish=me.Finish(last_seq=3))
    writer.hear_until("finish_ack")
    writer.leave()
    data = b"x" * 2000
    digest = hashlib.sha256(data).digest()
    header = ar.UploadHeader(run_id=run_id, path="models/best.pt", size=len(data), sha256=digest, data=data)
    ArtifactServiceStub(channel).UploadArtifact(iter([ar.UploadArtifactRequest(header=header)]))
    return writer.writer_id


def files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "artifacts").rglob("*") if path.is_file() and path.name != ".penstock"]


def run_id_of(number: int) -> str:
    return f"{number:032x}"


def test_what_was_deleted_long_ago_goes_beside_a_running_server(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            runs = RunServiceStub(channel)
            for number in (1, 2):
                fill(channel, run_id_of(number))
            runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id_of(1)))
            assert gc(data_dir) == (0, NOTHING, "")
            age(Embedded(data_dir / "postgres").dsn)
            told = "1 run and 0 experiments, with 3 points and 1 file of 1.953 KiB\n"
            code, out, err = gc(data_dir)
            assert (code, err) == (0, "")
            assert out == f"to remove: {told}nothing is removed yet; the same with --yes removes it for good\n"
            assert len(files(data_dir)) == 2
            assert gc(data_dir, "--older-than", "61d", "--yes")[1].startswith("removed: 0 runs")
            assert gc(data_dir, "--older-than", "59d", "--yes") == (0, f"removed: {told}", "")
            assert [file.parts[-4] for file in files(data_dir)] == [run_id_of(2)]
            with pytest.raises(grpc.RpcError) as caught:
                runs.GetRun(ru.GetRunRequest(run_id=run_id_of(1)))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert runs.GetRun(ru.GetRunRequest(run_id=run_id_of(2))).run.metrics[0].count == 3
            runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id_of(2)))
        age(Embedded(data_dir / "postgres").dsn)
        assert server.stop() == 0
        code, out, _ = gc(data_dir, "--yes")
        assert code == 0
        assert out.endswith(f"removed: {told}")
        assert files(data_dir) == []
        assert not Embedded(data_dir / "postgres").accepts(), "who has started it stops it"


def test_a_spool_that_comes_late_is_refused(dsn: str, data_dir: Path) -> None:
    """As when the run is only deleted. The client keeps what was refused in its spool."""
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            runs = RunServiceStub(channel)
            late = {"writer_id": fill(channel, run_id_of(1)), "epoch": 2, "last_acked": 3}
            runs.DeleteRun(ru.DeleteRunRequest(run_id=run_id_of(1)))
            create = ru.CreateRunRequest(name="of the spool")
            for number, says in enumerate(("is deleted; restore it first", "was removed for good; take another id")):
                refused = Conversation(channel, run_id_of(1), create_run=create, **late).error()
                assert refused.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert says in refused.details()
                age(dsn)
                assert gc(data_dir, "--yes", dsn=dsn)[1].startswith(f"removed: {1 - number} run")
            refused = Conversation(channel, run_id_of(1), **late).error()
            assert refused.code() is grpc.StatusCode.NOT_FOUND


def test_files_that_the_store_keeps_are_told(dsn: str, data_dir: Path) -> None:
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            fill(channel, run_id_of(1))
            RunServiceStub(channel).DeleteRun(ru.DeleteRunRequest(run_id=run_id_of(1)))
        assert server.stop() == 0
    age(dsn)
    (data_dir / "artifacts").rename(data_dir / "away")
    (data_dir / "artifacts").write_bytes(b"")
    code, out, err = gc(data_dir, "--yes", dsn=dsn)
    assert code == 1
    assert out.startswith("removed: 1 run ")
    assert "files are left in the store; any server removes them later" in out
    assert "the artifacts' store cannot be used" in out + err
    assert "Traceback" not in out + err


def test_where_there_is_no_database(data_dir: Path) -> None:
    code, out, err = gc(data_dir)
    assert code == 1
    assert f"{data_dir} has no database; name the server's with --data-dir or --database-url" in out + err
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("text", "age_ms"), [("30d", 2_592_000_000), ("12h", 43_200_000), ("45m", 2_700_000), ("0", 0), ("0d", 0)]
)
def test_an_age(text: str, age_ms: int) -> None:
    assert _age(text) == age_ms


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 d", "30D", "1w", "٣d", "9999999d"])
def test_no_age(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no age; write it such as 30d, 12h, 45m or 0"):
        _age(text)


def test_no_age_on_the_command_line() -> None:
    code, out, err = command("gc", "--older-than", "a month")
    assert (code, out) == (2, "")
    assert "argument --older-than: 'a month' is no age; write it such as 30d, 12h, 45m or 0" in err
