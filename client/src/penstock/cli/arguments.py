"""What can be typed after `penstock`."""

from __future__ import annotations

import argparse

from penstock import __version__
from penstock.cli import model_arguments

_RUN = "its id, or the first 6 digits of it or more"


def parser() -> argparse.ArgumentParser:
    """Of the whole command. `command` names the function in `commands`."""
    top = argparse.ArgumentParser(
        prog="penstock",
        description="Look at experiments, runs, metrics, artifacts and models; send what is left behind.",
    )
    top.add_argument("--version", action="version", version=f"penstock {__version__}")
    nouns = top.add_subparsers(required=True, metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--url", help="the server, as host:port (default: PENSTOCK_URL, or else localhost:50051)")

    experiments = _noun(nouns, "experiments", "groups of runs")
    _list_of(
        experiments, "experiments_list", "list experiments, the latest first", common, "tags.team = 'vision'", "name"
    )

    runs = _noun(nouns, "runs", "training jobs")
    listed = _list_of(runs, "runs_list", "list runs, the latest first", common, "metrics.acc > 0.9", "metrics.acc DESC")
    listed.add_argument(
        "--experiment", action="append", default=[], metavar="NAME", help="only of this one; repeatable"
    )
    show = runs.add_parser("show", parents=[common], help="one run: its params, tags, metrics and files")
    show.add_argument("run", metavar="RUN", help=_RUN)
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(command="runs_show")
    for verb, what in (("delete", "mark runs deleted: they log no more"), ("restore", "take a deletion back")):
        marked = runs.add_parser(verb, parents=[common], help=what)
        marked.add_argument("runs", metavar="RUN", nargs="+", help=_RUN)
        marked.set_defaults(command=f"runs_{verb}")
        if verb == "delete":
            marked.add_argument("--force", action="store_true", help="though versions of registered models stand on it")

    metrics = _noun(nouns, "metrics", "what runs have logged")
    plot = metrics.add_parser("plot", parents=[common], help="draw metrics over steps")
    plot.add_argument("run", metavar="RUN", help=_RUN)
    plot.add_argument("names", metavar="NAME", nargs="+", help="a metric")
    plot.add_argument(
        "--run", dest="more_runs", action="append", default=[], metavar="RUN", help="also of this run; repeatable"
    )
    plot.add_argument("--from", dest="start", type=int, metavar="STEP", help="from this step on")
    plot.add_argument("--to", dest="end", type=int, metavar="STEP", help="to this step, inclusive")
    plot.add_argument("--width", type=_size, metavar="COLUMNS", help="default: the terminal's")
    plot.add_argument("--height", type=_size, default=16, metavar="ROWS", help="default: 16")
    plot.set_defaults(command="metrics_plot")

    artifacts = _noun(nouns, "artifacts", "the files of runs")
    ls = artifacts.add_parser("ls", parents=[common], help="what is in a run, or in a directory of it")
    ls.add_argument("run", metavar="RUN", help=_RUN)
    ls.add_argument("directory", metavar="DIR", nargs="?", default="", help="default: the run itself")
    ls.add_argument("--recursive", "-r", action="store_true", help="all files below it")
    ls.add_argument("--json", action="store_true", help="as lines of JSON")
    ls.set_defaults(command="artifacts_ls")
    get = artifacts.add_parser("get", parents=[common], help="bring a file or directory to this machine")
    get.add_argument("run", metavar="RUN", help=_RUN)
    get.add_argument("path", metavar="PATH", nargs="?", default="", help="default: all that the run has")
    get.add_argument(
        "--output",
        "-o",
        metavar="DST",
        help="the file or directory that it becomes (default: here, under its name); - for standard output",
    )
    get.set_defaults(command="artifacts_get")
    put = artifacts.add_parser("put", parents=[common], help="bring a file, or all that is in a directory, into a run")
    put.add_argument("run", metavar="RUN", help=_RUN)
    put.add_argument("source", metavar="SOURCE", help="a file or directory of this machine")
    put.add_argument(
        "--path", default="", metavar="PATH", help="where in the run (default: under the file's name, or at the top)"
    )
    put.set_defaults(command="artifacts_put")
    rm = artifacts.add_parser("rm", parents=[common], help="delete a file, or a directory with all in it")
    rm.add_argument("run", metavar="RUN", help=_RUN)
    rm.add_argument("path", metavar="PATH", help="where in the run")
    rm.add_argument("--force", action="store_true", help="though versions of registered models stand on it")
    rm.set_defaults(command="artifacts_rm")

    models = _noun(nouns, "models", "the registry: models, their versions, aliases and stages")
    listed = _list_of(models, "models", "list models, by name", common, "tags.team = 'vision'", "name DESC")
    listed.set_defaults(act="list_")
    model_arguments.add(models, common)

    export = nouns.add_parser("export", parents=[common], help="write points as CSV or Parquet")
    export.add_argument("runs", metavar="RUN", nargs="+", help=_RUN)
    export.add_argument("--metric", action="append", default=[], metavar="NAME", help="only this one; repeatable")
    export.add_argument("--output", "-o", metavar="FILE", help="where to; without it, CSV to standard output")
    export.add_argument("--format", choices=["csv", "parquet"], help="default: as the FILE is called, or else csv")
    export.set_defaults(command="export")

    sync = nouns.add_parser(
        "sync", help="send what processes that are gone, or were offline, have left on this machine"
    )
    sync.add_argument("--dir", metavar="DIR", help="where it is (default: PENSTOCK_SPOOL_DIR, or else this user's own)")
    sync.add_argument("--url", help="another server than the one it was meant for, as host:port")
    sync.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="S",
        help="leave it when the server takes nothing for S seconds (default: 30)",
    )
    sync.add_argument("--take-over", action="store_true", help="also what belongs to processes that are alive")
    sync.add_argument(
        "--killed", action="store_true", help="then end as KILLED the runs whose processes died without ending them"
    )
    sync.add_argument("--list", action="store_true", help="show what is there, and send nothing")
    sync.add_argument(
        "--drop",
        metavar="RUN",
        help="instead, give up what is left of this run on this machine: show it, ask, remove it",
    )
    sync.add_argument("--yes", action="store_true", help="with --drop: do not ask")
    sync.set_defaults(command="sync")
    return top


def _noun(
    nouns: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse._SubParsersAction[argparse.ArgumentParser]:
    return nouns.add_parser(name, help=what).add_subparsers(required=True, metavar="COMMAND")


def _list_of(
    noun: argparse._SubParsersAction[argparse.ArgumentParser],
    command: str,
    what: str,
    common: argparse.ArgumentParser,
    such: str,
    order: str,
) -> argparse.ArgumentParser:
    listed = noun.add_parser("list", parents=[common], help=what)
    listed.add_argument("--filter", default="", help=f'as in docs/search.md, such as "{such}"')
    listed.add_argument("--order-by", action="append", default=[], metavar="KEY", help=f'such as "{order}"; repeatable')
    listed.add_argument("--limit", type=_size, default=50, metavar="N", help="default: 50")
    listed.add_argument("--json", action="store_true", help="as lines of JSON")
    listed.set_defaults(command=command)
    return listed


def _size(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
