"""`penstock models`, against a real server."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from pathlib import Path

import pytest

import penstock
from penstock.cli import main
from penstock.cli.arguments import parser
from servers import ServerProcess


@pytest.fixture
def name() -> str:
    return f"iris-{uuid.uuid4().hex}"


@pytest.fixture
def run_id(client: penstock.Client) -> str:
    run = client.create_run(f"models {uuid.uuid4().hex}")
    client.log_batch(run.id, {"acc": 0.9}, step=1)
    client.upload_artifact(run.id, b"a model", "model/weights.bin")
    return run.id


@pytest.fixture
def models(server: ServerProcess, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns what it printed, and what it said."""

    def call(*args: object, code: int = 0) -> tuple[str, str]:
        assert main(["models", *map(str, args), "--url", server.grpc_address]) == code
        printed = capsys.readouterr()
        return printed.out, printed.err

    return call


@pytest.fixture
def ann(monkeypatch: pytest.MonkeyPatch, models):
    """The same command, typed by another."""

    def call(*args: object, code: int = 0) -> tuple[str, str]:
        with monkeypatch.context() as environment:
            environment.setenv("PENSTOCK_USER", "ann")
            return models(*args, code=code)

    return call


def test_from_register_to_history(models, ann, name: str, run_id: str) -> None:
    assert models("register", name, run_id[:12], "model", "--tag", "team=vision") == (f"{name}/1\n", "")
    assert (
        models("register", name, "--source", "s3://elsewhere/model", "--description", "of others")[0] == f"{name}/2\n"
    )
    assert models("alias", f"{name}/1", "champion")[1] == f"{name}@champion names version 1\n"
    told = f"{name}@champion names version 2 (before: version 1)\n"
    assert ann("alias", f"models:/{name}/2", "champion", "--expected", 1)[1] == told
    assert "ann moved it at" in models("alias", f"{name}/1", "champion", "--expected", 1, code=1)[1]
    told = f"version 1 of '{name}' is in Production\n"
    assert models("stage", f"{name}/1", "production", "--archive-others")[1] == told

    out, err = models("list", "--filter", f"name = '{name}'")
    assert err == ""
    heading, line = out.splitlines()
    assert heading.split() == ["MODEL", "VERSION", "ALIASES", "STAGES", "CHANGED", "TAGS"]
    assert line.split()[:4] == [name, "2", "champion=2", "Production=1"]
    (line,) = models("list", "--filter", f"name = '{name}'", "--json")[0].splitlines()
    assert json.loads(line)["aliases"] == {"champion": 2}

    out = models("show", name)[0]
    (heading, *lines) = out.partition("\n\n")[2].splitlines()
    assert heading.split() == ["VERSION", "STATUS", "STAGE", "ALIASES", "RUN", "MADE", "BY"]
    assert [line.split()[:3] for line in lines] == [["2", "ready", "None"], ["1", "ready", "Production"]]
    assert run_id in lines[1]
    assert "s3://elsewhere/model" in lines[0]
    assert [each["version"] for each in json.loads(models("show", name, "--json")[0])["versions"]] == [2, 1]
    out = models("show", f"{name}/Production")[0]
    for shown in (f"runs:/{run_id}/model", "team=vision", "Production", "ready"):
        assert shown in out
    assert json.loads(models("show", f"{name}@champion", "--json")[0])["description"] == "of others"

    heading, *lines = models("history", name)[0].splitlines()
    assert heading.split() == ["EVENT", "WHEN", "WHO", "MODEL", "WHAT", "CHANGE"]
    assert len(lines) == 7
    (line,) = [each for each in lines if " ann " in each]
    assert "  alias set champion    version: 1 → 2" in line
    assert models("history", name, "--limit", 2)[1] == "(the latest 2; more with --limit)\n"
    lines = models("history", f"{name}/1", "--kind", "alias_set", "--json")[0].splitlines()
    assert [(each["kind"], each["version"]) for each in map(json.loads, lines)] == [("alias_set", 1)]

    told = f"{name}@champion names nothing (before: version 2)\n"
    assert models("alias", name, "champion", "--delete")[1] == told
    assert models("delete", f"{name}/2", "--yes")[1] == f"{name}/2: deleted\n"
    assert len(models("history", f"{name}/2")[0].splitlines()) > 1
    assert models("delete", name, "--whole", "--yes")[1] == f"{name}: deleted with all its versions\n"
    assert "does not exist" in models("show", name, code=1)[1]


def test_promotion_and_approval(client: penstock.Client, models, ann, name: str, run_id: str) -> None:
    models("register", name, run_id, "model")
    gates = ("--gate", "metrics.acc >= 0.8", "--gate", "metrics.acc >= champion.metrics.acc")
    out, err = models("promote", f"{name}/1", "--alias", "champion", *gates, "--dry-run")
    assert err == f"version 1 of '{name}' could get to @champion; nothing is moved\n"
    assert [line.split()[0] for line in out.splitlines()] == ["GATE", "passed", "passed"]
    assert "metrics.acc = 0.9" in out
    assert models("promote", f"{name}/1", "--alias", "champion", *gates)[1] == f"version 1 of '{name}' is @champion\n"
    out, err = models("promote", f"{name}@champion", "--stage", "staging", "--gate", "metrics.f1 > 0", code=1)
    assert out.splitlines()[1].split()[:4] == ["FAILED", "metrics.f1", ">", "0"]
    assert err == f"penstock: version 1 of '{name}' does not get to Staging: 1 of 1 gate failed\n"

    client.registry.set_policy(name, stage="Production", gates=["metrics.acc > 0.5"], approvals=1)
    assert "guarded" in models("stage", f"{name}/1", "Production", code=1)[1]
    out, _ = models("request", f"{name}/1", "--stage", "production", "--comment", "it is good")
    asked = out.splitlines()[-1]
    assert asked.endswith(f": version 1 of '{name}' to Production: pending, 0 of 1 approvals")
    shown = models("show", name)[0]
    assert "metrics.acc > 0.5" in shown
    assert "pending, 0 of 1 approvals" in shown
    assert models("approve", name, code=1)[1].startswith("penstock: ")  # one's own
    assert ann("approve", name)[0].endswith("promoted, approved by 1\n")
    assert "no promotion waits" in ann("approve", name, code=1)[1]
    models("register", name, run_id)
    lines = models("history", name)[0].splitlines()
    assert [line.partition("gates: ")[2] for line in lines if "gates: " in line] == [
        "metrics.acc > 0.5; promotion_id: " + asked.split()[1].rstrip(":"),
        "metrics.acc > 0.5",
        "metrics.acc >= 0.8; metrics.acc >= champion.metrics.acc",
    ]
    number = models("request", f"{name}/2", "--stage", "Production")[0].splitlines()[-1].split()[1].rstrip(":")
    assert "rejected" in ann("reject", name, number, "--comment", "no")[0]


def test_what_guards_what(models, name: str, run_id: str) -> None:
    models("register", name, run_id, "model")
    assert models("policy", name) == ("", f"nothing guards '{name}'\n")
    gates = (
        "metrics.acc >= 0.8 OR tags.waived = 'yes'",
        f"metrics.acc >= champion.metrics.acc AND params.long != '{'x' * 60}'",
    )
    out, err = models("policy", name, "--alias", "champion", "--gate", gates[0], "--gate", gates[1], "--approvals", 1)
    assert err == ""
    assert [line.split(maxsplit=2) for line in out.splitlines()] == [
        ["GUARDED", "APPROVALS", "GATES"],
        ["@champion", "1", gates[0]],
        gates[1].split(maxsplit=2),
    ]
    assert models("show", name)[0].endswith("\n\n" + out)
    assert models("policy", name, "--stage", "production", "--approvals", 0)[0].split()[-3:] == [
        "Production",
        "0",
        "none",
    ]
    assert "guarded" in models("stage", f"{name}/1", "Production", code=1)[1]
    assert models("policy", f"models:/{name}", "--alias", "champion")[0] == out
    assert models("policy", name, "--alias", "other")[1] == f"nothing guards @other of '{name}'\n"
    told = [json.loads(line) for line in models("policy", name, "--json")[0].splitlines()]
    assert [(each["alias"], each["stage"], each["gates"]) for each in told] == [
        ("champion", None, list(gates)),
        (None, "Production", []),
    ]

    models("policy", name, "--alias", "champion", "--gate", gates[0])  # in the place of all of it
    told = f"nothing guards @champion of '{name}' any more\n"
    assert models("policy", name, "--alias", "champion", "--clear") == ("", told)
    assert len(models("policy", name)[0].splitlines()) == 2
    lines = models("history", name, "--key", "champion")[0].splitlines()[1:]
    assert [line.partition("  approvals: ")[2] for line in lines] == [
        f"0 → none; gates: {gates[0]} → none",
        f"1 → 0; gates: {gates[0]}; {gates[1][:59]}… → {gates[0]}",
        f"1; gates: {gates[0]}; {gates[1][:59]}…",
    ]


def test_the_files_of_a_version_come_here(
    models, name: str, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("model", "model/weights.bin"):
        models("register", name, run_id, path)
    models("alias", f"{name}/2", "champion")
    monkeypatch.chdir(tmp_path)
    assert models("get", f"{name}/1") == ("model\n", "")
    assert (tmp_path / "model" / "weights.bin").read_bytes() == b"a model"
    assert models("get", f"models:/{name}@champion", "-o", "deep/model.bin")[0] == "deep/model.bin\n"
    assert (tmp_path / "deep" / "model.bin").read_bytes() == b"a model"
    assert models("get", f"{name}/latest", "--output", "-") == ("a model", "")


def test_another_version_is_waited_for(client: penstock.Client, models, name: str, run_id: str) -> None:
    for _ in range(2):
        models("register", name, run_id, "model")
    models("alias", f"{name}/1", "champion")
    which = ("wait", name, "--alias", "champion")
    told = f"penstock: models:/{name}@champion still names version 1\n"
    assert models(*which, "--timeout", 3, code=124) == ("", told)
    # Whether the server has been heard by then or not:
    assert f"models:/{name}/Production" in models("wait", name, "--stage", "production", "--timeout", 1e-6, code=124)[1]
    assert models(*which, "--other-than", 0) == (f"{name}/1\n", "")
    assert models("wait", name, "--version", 2)[0] == f"{name}/2\n"

    enough = threading.Event()

    def move() -> None:
        for version in itertools.cycle((2, 1)):
            if enough.wait(0.05):
                return
            client.registry.set_alias(name, "champion", version)

    moving = threading.Thread(target=move)
    moving.start()
    try:
        assert models(*which, "--timeout", 60)[0] in (f"{name}/1\n", f"{name}/2\n")
    finally:
        enough.set()
        moving.join(60)


def test_what_a_version_stands_on_is_deleted_by_force_only(
    server: ServerProcess, models, name: str, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models("register", name, run_id, "model")
    for command in (["artifacts", "rm", run_id, "model/weights.bin"], ["runs", "delete", run_id]):
        assert main([*command, "--url", server.grpc_address]) == 1
        assert f"{name} version 1" in capsys.readouterr().err
        assert main([*command, "--force", "--url", server.grpc_address]) == 0
    capsys.readouterr()
    assert models("history", name, "--kind", "source_deleted")[0].count("source deleted") == 2


def test_what_happens_is_printed_as_it_does(
    client: penstock.Client, server: ServerProcess, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    from penstock.cli import models as commands

    client.registry.create_model(name)
    (first,) = client.registry.events(name)
    for _ in range(2):
        client.registry.create_version(name, source="s3://elsewhere")
    args = ["models", "watch", name, "--after", str(first.id), "--url", server.grpc_address]
    told = []

    class Enough(Exception):
        pass

    def until_two(*values: object, **more: object) -> None:
        if "file" not in more:  # else it is said, not printed
            told.append(values[0])
        if len(told) == 2:
            raise Enough

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "print", until_two, raising=False)
        with pytest.raises(Enough):
            main(args)
    assert [str(each).split()[4:6] for each in told] == [[f"{name}/1", "version"], [f"{name}/2", "version"]]


def test_tags_and_search(models, name: str, run_id: str) -> None:
    for _ in range(2):
        models("register", name, run_id, "model")
    assert models("tag", f"{name}/1", "validated=yes", "team=a=b")[1] == f"{name}/1: 2 tags set\n"
    models("tag", name, "team=vision")
    out, err = models("search", f"name = '{name}' AND tags.validated = 'yes'")
    heading, line = out.splitlines()
    assert heading.split() == ["MODEL", "VERSION", "STATUS", "STAGE", "ALIASES", "RUN", "MADE", "BY", "TAGS"]
    assert (line.split()[:2], line.split()[-2:], err) == ([name, "1"], ["team=a=b", "validated=yes"], "")
    out, err = models("search", f"name = '{name}'", "--order-by", "version", "--limit", 1, "--json")
    assert (json.loads(out)["version"], err) == (1, "(the first 1; more with --limit)\n")
    assert models("tag", f"{name}/1", "team", "--delete")[1] == f"{name}/1: 1 tag deleted\n"
    assert "does not exist" in models("tag", f"{name}/1", "team", "--delete", code=1)[1]
    models("tag", name, "team", "--delete")
    assert json.loads(models("show", name, "--json")[0])["tags"] == {}
    assert json.loads(models("show", f"{name}/1", "--json")[0])["tags"] == {"validated": "yes"}


def test_what_programs_read(models, ann, name: str, run_id: str) -> None:
    assert json.loads(models("register", name, run_id, "--json")[0])["version"] == 1
    gate = ("--gate", "metrics.acc > 1")
    told = json.loads(models("promote", f"{name}/1", "--alias", "a", *gate, "--json", code=1)[0])
    assert (told["promoted"], [each["passed"] for each in told["gates"]]) == (False, [False])
    assert json.loads(models("stage", f"{name}/1", "Staging", "--json")[0])["stage"] == "Staging"
    models("policy", name, "--alias", "a", "--approvals", 1)
    told = json.loads(models("request", f"{name}/1", "--alias", "a", "--json")[0])
    assert told["state"] == "PENDING"
    assert json.loads(ann("approve", name, told["id"], "--json")[0])["state"] == "PROMOTED"


def test_the_next_step_is_told(client: penstock.Client, models, ann, name: str, run_id: str) -> None:
    models("register", name, run_id, "model")
    models("policy", name, "--alias", "champion", "--gate", "tags.validated = 'yes'", "--approvals", 1)
    error = models("alias", f"{name}/1", "champion", code=1)[1]
    assert "`penstock models request`" in error
    assert "()" not in error
    error = models("request", f"{name}/1", "--alias", "champion")[1]
    (number,) = [each.id for each in client.registry.promotions(name)]
    approve = f"penstock models approve {name} {number}\n"
    assert error == f"penstock: 1 of 1 gate would fail now; somebody else approves it: {approve}"
    out, error = ann("approve", name, code=1)
    assert out.endswith("pending, enough approvals\n")
    assert error.startswith("penstock: 1 gate failed: once that is mended, whoever approves again")
    assert error.endswith(approve)
    models("tag", f"{name}/1", "validated=yes")
    assert ann("approve", name)[1] == ""
    models("policy", name, "--alias", "champion", "--clear")
    error = models("request", f"{name}/1", "--alias", "champion", code=1)[1]
    assert "use `penstock models promote`" in error


def test_what_else_is_in_a_stage_is_told(models, name: str) -> None:
    for _ in range(3):
        models("register", name, "--source", "s3://elsewhere")
    for version in (2, 3):
        models("stage", f"{name}/{version}", "Production")
    told = f"version 1 of '{name}' is Production; but models:/{name}/Production is version 3, the newest there"
    assert models("promote", f"{name}/1", "--stage", "production")[1].startswith(told)
    error = models("stage", f"{name}/1", "production", "--archive-others")[1]
    assert error == f"version 1 of '{name}' is in Production; archived: version 2, 3\n"


def test_what_cannot_be_taken_back_is_asked_for(models, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models("register", name, "--source", "s3://elsewhere")
    models("alias", f"{name}/1", "champion")
    for what in (f"{name}/1", name):
        whole = ["--whole"] if what == name else []
        assert models("delete", what, *whole, code=1)[1].startswith("penstock: nothing is deleted")
    asked = []

    def answer(question: str) -> str:
        asked.append(question)
        return "y"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", answer)
    models("delete", f"{name}/1")
    assert asked == [f"Delete {name}/1 (@champion) for good? [y/N] "]


def test_an_alias_is_taken_from_the_version_that_is_named(models, name: str) -> None:
    for _ in range(2):
        models("register", name, "--source", "s3://elsewhere")
    models("alias", f"{name}/1", "champion")
    assert "names version 1, not version 2" in models("alias", f"{name}/2", "champion", "--delete", code=1)[1]
    assert models("alias", f"{name}/1", "champion", "--delete")[1].startswith(f"{name}@champion names nothing")


def test_a_version_without_its_run_says_so(
    server: ServerProcess, models, name: str, run_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models("register", name, run_id, "model")
    models("alias", f"{name}/1", "champion")
    assert main(["runs", "delete", run_id, "--force", "--url", server.grpc_address]) == 0
    assert f"without their files until it is restored: {name}/1 @champion\n" in capsys.readouterr().err
    assert "its run is deleted" in models("show", f"{name}/1")[0]
    assert "ready, but its run is deleted" in models("show", name)[0]
    problem = f"version 1 of '{name}' has no files: its run is deleted"
    assert problem in models("get", f"{name}@champion", code=1)[1]
    assert "its run is deleted" in models("promote", f"{name}/1", "--alias", "next", code=1)[1]
    assert main(["runs", "restore", run_id, "--url", server.grpc_address]) == 0
    capsys.readouterr()
    assert "deleted" not in models("show", f"{name}/1")[0]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("show", "none"), "does not exist"),
        (("show", "none/3"), "does not exist"),
        (("show", "none/x"), "names no version: write models:/name/3, models:/name/Production, models:/name/latest or"),
        (("show", "NAME/Staging"), "/Staging' does not exist; no version of it is in Staging"),
        (("show", f"runs:/{'0' * 32}/model"), "is of a run, and names no version of a model"),
        (("promote", "NAME", "--alias", "champion"), "names no version: write"),
        (("promote", "NAME/1", "--alias", "latest"), "latest"),
        (("promote", "NAME/1", "--stage", "shop"), "is not one of None, Staging, Production, Archived"),
        (("promote", "NAME/1", "--alias", "a", "--gate", "acc >>"), "at position"),
        (("stage", "NAME/1", "shop"), "is not one of"),
        (("alias", "NAME/1", "v3"), "would be taken for a version"),
        (("alias", "NAME", "nobody", "--delete"), "does not exist"),
        (("approve", "NAME"), "no promotion waits"),
        (("approve", "NAME", "1000000"), "does not exist"),
        (("register", "NAME"), "name the RUN"),
        (("register", "NAME", "0" * 32), "does not exist"),
        (("register", "NAME", "--source", "s3://x", "--tag", "x"), "is no tag"),
        (("history", "NAME", "--kind", "x"), "is no kind of event"),
        (("delete", "NAME"), "names no version"),
        (("policy", "none"), "does not exist"),
        (("policy", "NAME", "--gate", "metrics.acc > 0"), "name the --alias or the --stage"),
        (("policy", "NAME", "--clear"), "name the --alias or the --stage"),
        (("policy", "NAME", "--alias", "a", "--clear", "--approvals", "1"), "without --gate and --approvals"),
        (("policy", "NAME", "--alias", "a", "--clear"), "does not exist"),
        (("policy", "NAME", "--alias", "a", "--gate", "acc >>"), "at position"),
        (("policy", "NAME", "--alias", "a", "--approvals", "21"), "is not within 0 to 20"),
        (("policy", "NAME", "--stage", "shop"), "is not one of"),
        (("get", "NAME"), "names no version"),
        (("get", "NAME/1"), "is at s3://elsewhere: fetch it there"),
        (("wait", "none", "--alias", "a"), "does not exist"),
        (("wait", "NAME", "--stage", "shop"), "is not one of"),
        (("list", "--filter", "nonsense"), "at position"),
        (("history", "none"), "nothing ever happened to none"),
        (("history", "NAME/7"), "nothing ever happened to"),
        (("tag", "NAME", "x"), "is no tag"),
        (("search", "metrics.acc > 0"), "at position"),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    client: penstock.Client, models, name: str, args: tuple[str, ...], told: str
) -> None:
    client.registry.create_version(name, source="s3://elsewhere", create_model=True)
    _, error = models(*(each.replace("NAME", name) for each in args), code=1)
    assert error.startswith("penstock: ")
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_promotion_leads_to_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    for where in ([], ["--alias", "a", "--stage", "Staging"]):
        with pytest.raises(SystemExit):
            parser().parse_args(["models", "promote", "iris/1", *where])
    assert "--alias" in capsys.readouterr().err


def test_a_wait_has_an_end_that_can_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    for which in (
        ["--timeout", "nan"],
        ["--timeout", "0"],
        ["--other-than", "x"],
        ["--version", "1", "--other-than", "1"],
    ):
        with pytest.raises(SystemExit):
            parser().parse_args(["models", "wait", "iris", *which])
    assert "not allowed with" in capsys.readouterr().err
