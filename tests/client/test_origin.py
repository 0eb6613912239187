"""Where a run comes from."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from penstock import origin
from penstock.address import Address, parse_address
from penstock.run_ids import new_run_id, shared_run_id


def git(directory: Path, *args: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *identity, "-C", str(directory), *args]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with a commit."""
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "--initial-branch=work/main")
    git(tree, "commit", "--allow-empty", "--message=first")
    (tree / "deep" / "down").mkdir(parents=True)
    return tree


def test_the_commit_is_what_git_says(tree: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD")
    assert origin.git_commit(tree) == origin.git_commit(tree / "deep" / "down") == commit
    git(tree, "pack-refs", "--all")
    assert origin.git_commit(tree) == commit
    git(tree, "commit", "--allow-empty", "--message=second")
    assert origin.git_commit(tree) == git(tree, "rev-parse", "HEAD") != commit
    git(tree, "checkout", "--detach", commit)
    assert origin.git_commit(tree) == commit
    git(tree, "worktree", "add", "../other", "work/main")
    assert origin.git_commit(tree.parent / "other") == git(tree.parent / "other", "rev-parse", "HEAD") != commit


def test_what_is_no_repository_has_no_commit(tmp_path: Path, tree: Path) -> None:
    assert origin.git_commit(tmp_path) == ""
    for broken in ("", "ref: refs/heads/none", "ref: ../../../etc/passwd", "not a commit", "\0"):
        (tree / ".git" / "HEAD").write_text(broken)
        assert origin.git_commit(tree) == ""
    assert origin.git_commit(Path("a\0b")) == ""


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, (0, 0)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ({"RANK": "3"}, (3, 0)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, (1, 4)),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4"}, (2, 4)),
        ({"RANK": "x", "SLURM_PROCID": "1"}, (1, 0)),
        ({"RANK": "-1"}, (0, 0)),
        ({"RANK": "99999999999"}, (0, 0)),
    ],
)
def test_ranks_are_what_launchers_tell(environ: dict[str, str], told: tuple[int, int]) -> None:
    assert origin.rank(environ) == told


def test_nothing_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("sys.argv", [])
    monkeypatch.delattr("__main__.__file__", raising=False)
    found = origin.find_origin()
    assert found.source_name == ""
    assert "mlflow.source.name" not in found.tags
    assert found.user == str(os.getuid())


@pytest.mark.parametrize(
    ("url", "target", "tls"),
    [
        ("localhost:50051", "localhost:50051", False),
        ("tracking.example.org", "tracking.example.org:50051", False),
        ("penstock://a:1", "a:1", False),
        ("http://a:1/", "a:1", False),
        ("grpc://a", "a:50051", False),
        ("https://a", "a:443", True),
        ("grpcs://a:1", "a:1", True),
        ("[::1]:1", "[::1]:1", False),
        ("unix:/run/penstock.sock", "unix:/run/penstock.sock", False),
        (" a:1 ", "a:1", False),
    ],
)
def test_addresses(url: str, target: str, tls: bool) -> None:
    assert parse_address(url) == Address(target, tls, "default")


@pytest.mark.parametrize(
    "url", ["", "ftp://a", "a:b", "a:0", "a:70000", "http://a/path", "http://a?b", "://", "http://"]
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_address(url)


def test_the_environment_gives_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_URL", raising=False)
    assert parse_address().target == "localhost:50051"
    monkeypatch.setenv("PENSTOCK_URL", "a:1")
    monkeypatch.setenv("PENSTOCK_WORKSPACE", "vision")
    assert parse_address() == Address("a:1", tls=False, workspace="vision")
    monkeypatch.setenv("PENSTOCK_USER", "Žofie % \n1")
    assert list(parse_address().metadata) == [
        ("penstock-workspace", "vision"),
        ("penstock-user", "%C5%BDofie %25 1"),
    ]
    assert parse_address("b:2", "speech") == Address("b:2", tls=False, workspace="speech")


def test_run_ids_sort_by_time_and_shared_ones_agree() -> None:
    ids = [new_run_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert len({each[:9] for each in ids}) == 1
    assert shared_run_id("default", "digits", "42") == shared_run_id("default", "digits", "42")
    assert shared_run_id("default", "digits", "42") != shared_run_id("default", "letters", "42")
    # What jobs have been told must stay.
    assert shared_run_id("default", "digits", "42") == "4803c51923b559cc9903c87b5f0be1fe"
