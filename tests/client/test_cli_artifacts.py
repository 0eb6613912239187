"""`penstock artifacts`, against a real server."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from peer import eventually

import penstock
from penstock import bars
from penstock.cli import artifacts as commands
from penstock.cli import main
from servers import ServerProcess


@pytest.fixture
def run_id(client: penstock.Client) -> str:
    return client.create_run("artifacts").id


@pytest.fixture
def artifacts(server: ServerProcess, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns what it printed, and what it said."""

    def call(*args: object, code: int = 0) -> tuple[str, str]:
        assert main(["artifacts", *map(str, args), "--url", server.grpc_address]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return call


def test_there_and_back(artifacts, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.bin").write_bytes(bytes(3 << 20))
    assert artifacts("put", run_id, source, "--path", "all") == ("all/a.txt\nall/sub/b.bin\n", "")
    assert artifacts("put", run_id, source / "a.txt")[0] == "a.txt\n"
    assert artifacts("put", run_id, source / "a.txt", "--path", "texts/")[0] == "texts/a.txt\n"
    assert artifacts("put", run_id, source / "a.txt", "--path", "texts\\other.txt")[0] == "texts/other.txt\n"

    lines = artifacts("ls", run_id)[0].splitlines()
    assert [line.split()[-1] for line in lines] == ["PATH", "a.txt", "all/", "texts/"]
    assert lines[0].split() == ["SIZE", "STORED", "PATH"]
    assert lines[1].startswith(" 1 B  "), "figures stand at the right"
    assert "3.0 MiB" in artifacts("ls", str(uuid.UUID(run_id)).upper(), "all/sub")[0]
    told = [json.loads(line) for line in artifacts("ls", run_id, "all", "--recursive", "--json")[0].splitlines()]
    assert [(each["path"], each["size"]) for each in told] == [("all/a.txt", 1), ("all/sub/b.bin", 3 << 20)]
    assert artifacts("ls", run_id, "all/a.txt")[0].splitlines()[1].endswith("all/a.txt")

    monkeypatch.chdir(tmp_path)
    assert artifacts("get", run_id, "all/a.txt") == ("a.txt\n", "")
    assert artifacts("get", run_id, "all", "--output", "got")[0] == "got\n"
    assert (tmp_path / "got" / "sub" / "b.bin").read_bytes() == bytes(3 << 20)
    assert artifacts("get", run_id)[0] == f"{run_id}\n"
    assert (tmp_path / run_id / "texts" / "other.txt").read_text() == "a"

    assert artifacts("rm", run_id, "all/a.txt") == ("", "1 file deleted\n")
    assert artifacts("rm", run_id, "texts") == ("", "2 files deleted\n")
    assert [line.split()[-1] for line in artifacts("ls", run_id)[0].splitlines()] == ["PATH", "a.txt", "all/"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("ls", "nope"), "is not a run id"),
        (("ls", "12345"), "is not a run id"),
        (("ls", 31 * "0"), "no run's id begins with"),
        (("get", "RUN"), "has no files"),
        (("get", "RUN", "none", "--output", "-"), "does not exist"),
        (("ls", 32 * "0"), "does not exist"),
        (("ls", "RUN", "none"), "does not exist"),
        (("put", "RUN", ""), "there is no file or directory ''"),
        (("get", "RUN", "none"), "does not exist"),
        (("get", "RUN", "../none"), "has a . or .. in it"),
        (("rm", "RUN", "none"), "does not exist"),
        (("put", "RUN", "/no/such/file"), "there is no file or directory"),
        (("put", "RUN", "/dev/null"), "is no file"),
        (("put", "RUN", __file__, "--path", "C:\\x"), "begins with a drive letter"),
    ],
)
def test_mistakes_are_told_in_a_sentence(artifacts, run_id: str, args: tuple[str, ...], told: str) -> None:
    _, error = artifacts(*(run_id if arg == "RUN" else arg for arg in args), code=1)
    assert error.startswith("penstock: ")
    assert told in error
    assert len(error.splitlines()) == 1


def test_what_fails_of_a_directory_is_told(artifacts, run_id: str, tmp_path: Path) -> None:
    (tmp_path / "good").write_text("x")
    (tmp_path / "bad").symlink_to(tmp_path / "gone")
    _, error = artifacts("put", run_id, tmp_path, code=1)
    assert "1 of 2 files failed: bad: " in error
    assert artifacts("ls", run_id)[0].splitlines()[1].endswith("good")


def test_to_standard_output(
    server: ServerProcess, client: penstock.Client, run_id: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = bytes(range(256)) * 9000
    client.upload_artifact(run_id, data, "d/raw.bin")
    told = ["--url", server.grpc_address, "--output", "-"]
    assert main(["artifacts", "get", run_id, "d/raw.bin", *told]) == 0
    assert capfdbinary.readouterr() == (data, b"")
    assert main(["artifacts", "get", run_id, "d", *told]) == 1
    printed = capfdbinary.readouterr()
    assert (printed.out, printed.err) == (b"", b"penstock: only a single file can go to standard output\n")


def test_what_fails_leaves_no_empty_directories(
    artifacts, server: ServerProcess, client: penstock.Client, run_id: str, tmp_path: Path
) -> None:
    for path in ("a/b/c.txt", "a/d.txt"):
        client.upload_artifact(run_id, b"x", path)
        next(file for file in (server.data_dir / "artifacts").rglob(Path(path).name) if run_id in file.parts).unlink()
    artifacts("get", run_id, "--output", tmp_path / "out" / "deep", code=1)
    artifacts("get", run_id, "a/d.txt", "--output", tmp_path / "out" / "d.txt", code=1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine" / "empty").mkdir(parents=True)
    artifacts("get", run_id, "--output", tmp_path / "mine", code=1)
    assert (tmp_path / "mine" / "empty").is_dir(), "what was there before stays"


def test_the_beginning_of_a_run_id_is_enough(artifacts, client: penstock.Client) -> None:
    first, second = (f"abcdef{number}{31 * '0'}"[:32] for number in (1, 2))
    for each in (first, second):
        client.create_run("artifacts", name="twin", run_id=each)
        client.upload_artifact(each, b"x", each[6])
    assert artifacts("ls", "abcdef1")[0].splitlines()[1].endswith(" 1")
    assert artifacts("rm", "ABCDEF2", "2")[1] == "1 file deleted\n"
    _, error = artifacts("ls", "abcdef", code=1)
    assert error.startswith("penstock: 'abcdef' begins the ids of several runs: ")
    assert f"{first} (twin)" in error
    assert f"{second} (twin)" in error


def test_what_waits_without_a_move_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "_QUIET", 0.0)
    monkeypatch.setattr(commands, "_TICK", 0.01)
    with commands._progress(1, 2048):
        eventually(lambda: capsys.readouterr().err.startswith("penstock: 1 file: 0 B of 2.0 KiB"))
