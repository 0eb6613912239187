"""The command `penstock`, against a real server."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import uuid
from array import array
from pathlib import Path

import pytest

import penstock
from penstock.cli import main
from penstock.cli.plot import plot
from penstock.metrics import History
from servers import ServerProcess


@pytest.fixture(scope="module")
def run(server: ServerProcess) -> str:
    """A run with something to look at."""
    with penstock.start_run(
        "from the terminal", "sgd", {"lr": 0.1}, {"esc": "\x1b[31m"}, url=server.grpc_address
    ) as run:
        for step in range(200):
            run.log({"loss": 1 / (step + 1), "acc": step / 200}, step=step, time=step)
        run.log({"odd": math.nan}, step=0)
    return run.id


@pytest.fixture
def penstock_(server: ServerProcess, capsys: pytest.CaptureFixture[str]):
    """Runs a command; returns its standard output."""

    def call(*args: str, code: int = 0) -> str:
        assert main([*args, "--url", server.grpc_address]) == code
        return capsys.readouterr().out

    return call


def test_experiments_list(penstock_, run: str) -> None:
    assert "from the terminal" in penstock_("experiments", "list")
    (line,) = penstock_("experiments", "list", "--filter", "name = 'from the terminal'", "--json").splitlines()
    assert json.loads(line)["name"] == "from the terminal"


def test_runs_list(penstock_, run: str) -> None:
    output = penstock_("runs", "list", "--experiment", "from the terminal", "--order-by", "metrics.acc DESC")
    heading, line = output.splitlines()
    assert heading.split() == ["RUN", "NAME", "STATUS", "STARTED", "TOOK", "METRICS"]
    assert line.startswith(f"{run}  sgd   finished")
    assert "acc=0.995" in line
    assert len(penstock_("runs", "list", "--filter", "params.lr = 'none'").splitlines()) == 1
    (line,) = penstock_("runs", "list", "--experiment", "from the terminal", "--json").splitlines()
    told = json.loads(line)
    assert (told["id"], told["status"], told["metrics"]["odd"]["last_value"]) == (run, "FINISHED", "NaN")


def test_runs_show(penstock_, run: str) -> None:
    output = penstock_("runs", "show", run)
    for told in (run, "sgd", "finished", "lr", "0.1", "loss", "0.005", "200"):
        assert told in output
    assert "\x1b" not in output  # what a run says does not steer the terminal
    assert json.loads(penstock_("runs", "show", run, "--json"))["params"] == {"lr": "0.1"}


def test_runs_show_tells_of_experiment_and_files(penstock_, client: penstock.Client) -> None:
    run_id = client.create_run("shown by name").id
    output = penstock_("runs", "show", run_id)
    assert "experiment  shown by name (" in output
    assert "files" not in output
    client.upload_artifact(run_id, b"12", "a")
    assert "files       1 file with 2 B" in penstock_("runs", "show", run_id)


def test_runs_are_deleted_and_restored(penstock_, client: penstock.Client) -> None:
    first, second = (client.create_run("deleted and restored").id for _ in range(2))
    assert penstock_("runs", "delete", first, second) == ""
    assert "deleted" in penstock_("runs", "show", first)
    assert not client.get_run(second).active
    penstock_("runs", "restore", first)
    assert (client.get_run(first).active, client.get_run(second).active) == (True, False)
    penstock_("runs", "delete", 32 * "0", code=1)


def test_metrics_plot(penstock_, run: str) -> None:
    output = penstock_("metrics", "plot", run, "loss", "acc", "--width", "60", "--height", "8")
    lines = output.splitlines()
    assert {"loss", "acc"} <= set(lines)
    assert max(map(len, lines)) <= 60
    assert any("⣀" <= character <= "⣿" for character in output)
    assert lines[-1].split() == ["0", "step", "199"]


def test_export_csv(penstock_, run: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(penstock_("export", run))))
    assert len(rows) == 401
    assert rows[0] == {"run_id": run, "name": "acc", "step": "0", "time_ms": "0", "value": "0.0"}
    assert float(rows[250]["value"]) == 1 / 51
    assert rows[-1]["value"] == "nan"
    target = tmp_path / "points.csv"
    penstock_("export", run, "--metric", "loss", "--output", str(target))
    assert len(target.read_text().splitlines()) == 201


def test_export_parquet(penstock_, run: str, tmp_path: Path) -> None:
    from pyarrow import parquet

    target = tmp_path / "points.parquet"
    penstock_("export", run, "--output", str(target))
    table = parquet.read_table(target)
    assert table.column_names == ["run_id", "name", "step", "time", "value"]
    assert table.num_rows == 401
    frame = table.to_pandas()
    assert frame[frame.name == "loss"].value.tolist() == [1 / (step + 1) for step in range(200)]
    assert set(frame.run_id) == {run}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["runs", "show", "x"], "not a run id"),
        (["runs", "show", "0" * 32], "does not exist"),
        (["runs", "list", "--filter", "nonsense"], "at position"),
        (["runs", "list", "--experiment", "nosuch"], "nosuch"),
        (["metrics", "plot", "x", "loss"], "not a run id"),
        (["export", "x"], "not a run id"),
        (["export", "0" * 32, "--format", "parquet"], "--output"),
        (["export", "0" * 32, "--output", "points.xlsx"], "only .csv and .parquet are written"),
    ],
)
def test_errors_are_a_sentence(
    server: ServerProcess, capsys: pytest.CaptureFixture[str], args: list[str], told: str
) -> None:
    assert main([*args, "--url", server.grpc_address]) == 1
    error = capsys.readouterr().err
    assert error.startswith("penstock: ")
    assert told in error
    assert len(error.splitlines()) == 1


def test_a_metric_that_is_not_there_is_an_error_before_anything_is_written(
    server: ServerProcess, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "points.csv"
    wanted = ["--metric", "loss", "--metric", "nosuch", "--output", str(target)]
    assert main(["export", run, *wanted, "--url", server.grpc_address]) == 1
    assert capsys.readouterr().err == "penstock: no such metric in these runs: nosuch\n"
    assert not target.exists()


def test_run_ids_may_have_dashes_and_capitals(penstock_, run: str) -> None:
    dashed = str(uuid.UUID(run)).upper()
    assert len(penstock_("export", dashed, "--metric", "loss").splitlines()) == 201
    assert "step" in penstock_("metrics", "plot", dashed, "loss", "--width", "40")
    assert run in penstock_("runs", "show", dashed)


def test_a_reader_who_has_seen_enough_is_no_error(server: ServerProcess, run: str) -> None:
    command = f"{sys.executable} -m penstock.cli export {run} --url {server.grpc_address} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout == "run_id,name,step,time_ms,value\n"
    assert "Traceback" not in done.stderr


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--url", "127.0.0.1:9"]) == 1
    assert "penstock-server serve" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["metrics", "plot", "--help"])
    assert "RUN" in capsys.readouterr().out


def history(values: list[float], name: str = "loss") -> History:
    return History("r", name, array("q", range(len(values))), array("q", [0] * len(values)), array("d", values))


def test_plots_of_little() -> None:
    assert plot(history([])) == "no numbers to plot: loss"
    assert plot(history([math.nan, math.inf])) == "no numbers to plot: loss"
    for values in ([0.0], [5.0, 5.0], [1e300, -1e300], [math.nan, 1.0, math.nan]):
        lines = plot(history(values), width=40, height=4).splitlines()
        assert len(lines) == 7
        assert any("⠁" <= character <= "⣿" for line in lines for character in line)


def test_a_straight_line_is_drawn_straight() -> None:
    drawn = plot(history([0.0, 1.0, 2.0, 3.0]), width=12, height=2)
    assert drawn.splitlines() == ["loss", "3 ┤⠀⠀⠀⠀⢀⡠⠔⠒⠉", "0 ┤⣀⠤⠔⠊⠁⠀⠀⠀⠀", "  └─────────", "   0 step  3"]


def test_colours_only_where_they_are_asked_for() -> None:
    curves = (history([1.0, 2.0]), history([2.0, 1.0], "acc"))
    assert "\x1b[" not in plot(*curves)
    assert "\x1b[36m" in plot(*curves, colour=True)
    assert "\x1b[33m" in plot(*curves, colour=True)
