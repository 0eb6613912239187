"""`penstock-server doctor` finds what would keep a server from starting, and says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

import asyncpg
import pytest

from penstock_server import cli
from penstock_server.config import load
from s3 import S3Server
from servers import ServerProcess, clean_environment, command

PORTS = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")


def execute(dsn: str, sql: str) -> None:
    async def main() -> None:
        conn = await asyncpg.connect(dsn)
        await conn.execute(sql)
        await conn.close()

    asyncio.run(main())


def doctor(
    data_dir: Path, *args: str, dsn: str | None = None, env: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str]]:
    """Exit code, and what was found by subject. In this process: to start another takes seconds of CPU."""
    environment = clean_environment() | {"PENSTOCK_DATABASE_URL": dsn or ""} | dict(env or {})
    given = vars(cli._parser().parse_args(["doctor", "--data-dir", str(data_dir), *args]))
    del given["command"]
    with mock.patch.dict(os.environ, environment, clear=True), contextlib.redirect_stdout(io.StringIO()) as out:
        code = asyncio.run(cli._doctor(load(given).settings))
    return code, by_subject(out.getvalue())


def by_subject(out: str) -> dict[str, str]:
    found: dict[str, str] = {}
    subject = ""
    for line in out.splitlines():
        if line.startswith((" ", "\t")):
            found[subject] += " " + line.strip()
        elif line[10:26].strip():
            subject = line[10:26].strip()
            found[subject] = f"{found.get(subject, '')} {line[:10].strip()}: {line[26:]}".strip()
    return found


def test_as_a_command(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    root.mkdir()
    code, out, err = command("doctor", "--data-dir", str(tmp_path / "data"), *PORTS, "--artifacts-root", str(root))
    assert (code, err) == (0, "")
    assert by_subject(out)["artifacts"].startswith("ok: ")
    assert out.endswith("\nA server will start here.\n")
    dsn = "postgresql://me:g3heim@127.0.0.1:9/penstock"
    code, out, err = command("doctor", "--data-dir", str(root), *PORTS, env={"PENSTOCK_DATABASE_URL": dsn})
    assert (code, err) == (1, "")
    assert by_subject(out)["database"].startswith("bad: ")
    assert out.endswith("\n1 to fix before a server starts here.\n")


def test_with_no_configuration_all_is_well(data_dir: Path) -> None:
    code, found = doctor(data_dir, *PORTS)
    assert code == 0
    assert found["data directory"] == f"ok: {data_dir}, will be made"
    assert "made at the first start" in found["database"]
    assert found["artifacts"] == f"ok: {data_dir / 'artifacts'}, will be made"
    assert not data_dir.exists(), "the doctor changes nothing"


def test_a_running_server_is_recognised(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        code, found = doctor(data_dir, "--grpc-address", server.grpc_address, "--http-address", server.http_address)
        assert code == 0
        assert "in use by a server that runs now" in found["data directory"]
        assert "in use by the server that runs now" in found["gRPC"]
        assert "embedded PostgreSQL answers: PostgreSQL 18" in found["database"]
        assert found["migrations"] == "ok: all applied, none edited"
        assert found["durability"] == "ok: fsync on, synchronous_commit on"


def test_ports_and_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, found = doctor(tmp_path / "file", "--grpc-address", address, "--http-address", "0.0.0.0:0")
    assert code == 1
    assert found["data directory"].startswith(f"bad: {tmp_path / 'file'} cannot be written to →")
    assert found["gRPC"] == (
        f"bad: {address} is in use by another program → stop that, or choose another --grpc-address"
    )
    assert found["HTTP"].startswith("warning: 0.0.0.0:0 is free, but open to others, and there are no accounts yet →")


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    code, found = doctor(tmp_path / "data", *PORTS, dsn="postgresql://me:g3heim@127.0.0.1:9/penstock")
    assert code == 1
    assert found["database"].startswith("bad: postgresql://me:***@127.0.0.1:9/penstock: the database is away")
    assert "Connect call failed" in found["database"]
    assert found["database"].endswith("→ start it, or correct database_url")


def test_a_database_without_our_tables(postgres, tmp_path: Path) -> None:
    dsn = postgres.create()
    code, found = doctor(tmp_path / "data", *PORTS, dsn=dsn)
    assert code == 1
    assert found["migrations"] == (
        "bad: the database lacks 0001_tracking, 0002_delivery, 0003_artifacts, 0004_registry, 0005_mlflow"
        " → run: penstock-server migrate"
    )
    assert found["durability"].startswith("bad: fsync is off"), "as it is in the session's PostgreSQL"
    postgres.drop(dsn)


def test_a_user_without_rights(postgres, tmp_path: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    execute(dsn, "CREATE ROLE weak LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON runs, migrations TO weak")
    try:
        code, found = doctor(tmp_path / "data", *PORTS, dsn=dsn.replace("postgres:@", "weak@"))
        assert code == 1
        assert found["database"].endswith("user weak")
        assert (
            "weak may not read and change: artifact_blobs, artifact_parts, artifact_store, artifacts"
            in found["permissions"]
        )
        assert " runs," not in found["permissions"]
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in found["permissions"]
    finally:
        execute(dsn, "DROP OWNED BY weak; DROP ROLE weak")
        postgres.drop(dsn)


def test_asynchronous_commits_are_refused(postgres, tmp_path: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    name = dsn.partition("?")[0].rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    code, found = doctor(tmp_path / "data", *PORTS, dsn=dsn)
    assert code == 1
    assert "synchronous_commit is off, so a crash would lose acknowledged points" in found["database"]
    code, out, err = command("serve", "--data-dir", str(tmp_path / "data"), *PORTS, env={"PENSTOCK_DATABASE_URL": dsn})
    assert code == 1
    assert "synchronous_commit is off" in out + err
    postgres.drop(dsn)


# Where artifacts are kept.


def test_a_directory_is_tried_out_and_left_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    root.mkdir()
    code, found = doctor(tmp_path / "data", *PORTS, "--artifacts-root", str(root))
    assert code == 0
    assert found["artifacts"] == f"ok: {root.as_uri()}: written, read back and deleted"
    assert found["multipart"].startswith("ok: an object of 5242")
    assert found["free space"].partition(":")[0] in ("ok", "warning")
    assert list(root.iterdir()) == []


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, found = doctor(tmp_path / "data", *PORTS, "--artifacts-root", str(tmp_path / "file" / "artifacts"))
    assert code == 1
    assert found["artifacts"].startswith(f"bad: {tmp_path / 'file'} cannot be written to →")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "buckets") as server:
        yield server


def test_a_bucket_is_tried_out_and_left_as_it_was(s3: S3Server, tmp_path: Path) -> None:
    code, found = doctor(tmp_path / "data", *PORTS, "--artifacts-mode", "direct", env=s3.environment)
    assert code == 0
    assert found["artifacts"] == f"ok: {s3.root}: written, read back and deleted"
    assert found["multipart"].startswith("ok: an object of 5242")
    assert found["addresses"] == "ok: presigned, and taken"
    assert found["clock"] == "ok: agrees with the store's"
    assert s3.files == []


def test_a_bucket_that_cannot_be_used(s3: S3Server, tmp_path: Path) -> None:
    env = s3.environment | {"AWS_SECRET_ACCESS_KEY": "g3heim"}
    code, found = doctor(tmp_path / "data", *PORTS, env=env)
    assert code == 1
    where, _, problem = found["artifacts"].removeprefix("bad: ").partition(": our ")
    assert where == f"{s3.root} at {s3.endpoint}"
    assert problem.startswith("secret is not that of our access key → check what the server's process sees")
    assert "g3heim" not in str(found)
