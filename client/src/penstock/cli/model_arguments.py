"""What can be typed after `penstock models`."""

from __future__ import annotations

import argparse
import threading

_VERSION = "a version: iris/3, iris@champion, iris/Production, iris/latest"
_RUN = "its id, or the first 6 digits of it or more"


def add(models: argparse._SubParsersAction[argparse.ArgumentParser], common: argparse.ArgumentParser) -> None:
    """All but `list`. `act` names the function in `models`."""

    def verb(name: str, what: str) -> argparse.ArgumentParser:
        made = models.add_parser(name, parents=[common], help=what)
        made.set_defaults(command="models", act=name)
        return made

    show = verb("show", "one model with its versions, or one version")
    show.add_argument("ref", metavar="MODEL", help=f"its name; or {_VERSION}")
    show.add_argument("--json", action="store_true", help="as JSON")

    register = verb("register", "make the next version of a model, which is made when there is none")
    register.add_argument("name", metavar="NAME", help="the model's")
    register.add_argument("run", metavar="RUN", nargs="?", default="", help=_RUN)
    register.add_argument("path", metavar="PATH", nargs="?", default="", help="of its files (default: all of them)")
    register.add_argument("--source", default="", metavar="URI", help="where the files are, if not in a run")
    register.add_argument("--description", default="", metavar="TEXT", help="of the version")
    register.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="of the version; repeatable")
    _json(register)

    tag = verb("tag", "set or delete tags of a model or a version")
    tag.add_argument("ref", metavar="MODEL", help=f"its name; or {_VERSION}")
    tag.add_argument("tags", metavar="KEY=VALUE", nargs="+", help="with --delete, KEY")
    tag.add_argument("--delete", action="store_true", help="delete tags with these keys")

    search = verb("search", "list versions of models, the last changed first")
    search.add_argument(
        "filter", metavar="FILTER", nargs="?", default="", help="such as \"stage = 'Production'\" (default: all)"
    )
    search.add_argument("--order-by", action="append", default=[], metavar="KEY", help='"version DESC"; repeatable')
    search.add_argument("--limit", type=_size, default=50, metavar="N", help="default: 50")
    search.add_argument("--json", action="store_true", help="as lines of JSON")

    promote = verb("promote", "move an alias or a stage to a version if all gates pass; exits with 1 when they do not")
    _target(promote)
    promote.add_argument(
        "--expected", type=int, metavar="N", help="only if the alias names version N now; 0: none (default: whatever)"
    )
    promote.add_argument("--dry-run", action="store_true", help="show what the gates say, and move nothing")
    _json(promote)

    request = verb("request", "ask others to approve a promotion")
    _target(request)
    _comment(request)
    _json(request)

    for name, what in (("approve", "approve what another has requested"), ("reject", "end what was requested")):
        judge = verb(name, what)
        judge.add_argument("name", metavar="NAME", help="the model's")
        judge.add_argument(
            "promotion", metavar="PROMOTION", nargs="?", type=int, help="its number (default: the only one that waits)"
        )
        _comment(judge)
        _json(judge)

    policy = verb("policy", "what guards the aliases and stages of a model; sets it with --gate or --approvals")
    policy.add_argument("name", metavar="NAME", help="the model's")
    _where(policy, "only what guards this alias", "or this stage: Staging or Production")
    _gates(policy)
    policy.add_argument("--approvals", type=int, metavar="N", help="so many others must approve (default: 0)")
    policy.add_argument("--clear", action="store_true", help="nothing is to guard it any more")
    policy.add_argument("--json", action="store_true", help="as lines of JSON")

    get = verb("get", "bring the files of a version to this machine")
    get.add_argument("ref", metavar="VERSION", help=_VERSION)
    get.add_argument(
        "--output",
        "-o",
        metavar="DST",
        help="the file or directory that it becomes (default: here, under its name); - for standard output",
    )

    wait = verb("wait", "wait until there is another version, and print it; exits with 124 when its time is over")
    wait.add_argument("name", metavar="NAME", help="the model's")
    _where(wait, "until this alias names another", "or there is a newer one in this stage (default: of all)")
    which = wait.add_mutually_exclusive_group()
    which.add_argument(
        "--other-than",
        type=_number,
        metavar="N",
        help="other than version N, at once if it is already; 0: none (default: than now)",
    )
    which.add_argument("--version", type=_number, metavar="N", help="until it is version N; at once if it is already")
    wait.add_argument(
        "--timeout", type=_seconds, metavar="S", help="for at most so many seconds (default: without end)"
    )

    history = verb("history", "what has happened to a model or a version, the latest first")
    history.add_argument("ref", metavar="MODEL", nargs="?", default="", help=f"its name, or {_VERSION} (default: all)")
    history.add_argument("--kind", action="append", default=[], metavar="KIND", help="such as alias_set; repeatable")
    history.add_argument("--key", default="", metavar="KEY", help="only of this alias, stage or tag")
    history.add_argument("--limit", type=_size, default=50, metavar="N", help="default: 50")
    history.add_argument("--json", action="store_true", help="as lines of JSON")

    alias = verb("alias", "have an alias name a version, or nothing any more")
    alias.add_argument("ref", metavar="VERSION", help=f"{_VERSION}; with --delete, the model's name will do")
    alias.add_argument("alias", metavar="ALIAS", help="such as champion")
    alias.add_argument(
        "--expected", type=int, metavar="N", help="only if it names version N now; 0: none (default: whatever)"
    )
    alias.add_argument("--delete", action="store_true", help="it is to name nothing")

    stage = verb("stage", "bring a version into a stage")
    stage.add_argument("ref", metavar="VERSION", help=_VERSION)
    stage.add_argument("stage", metavar="STAGE", help="None, Staging, Production or Archived")
    stage.add_argument("--archive-others", action="store_true", help="archive the versions that are in it")
    _json(stage)

    delete = verb("delete", "remove versions, or a whole model; files and history stay")
    delete.add_argument("refs", metavar="VERSION", nargs="+", help=f"{_VERSION}; with --whole, a model's name")
    delete.add_argument("--whole", action="store_true", help="models with all their versions")
    delete.add_argument("--yes", action="store_true", help="do not ask")

    watch = verb("watch", "print what happens, as it does; ends with Ctrl-C")
    watch.add_argument("names", metavar="NAME", nargs="*", help="only of these models")
    watch.add_argument("--kind", action="append", default=[], metavar="KIND", help="such as alias_set; repeatable")
    watch.add_argument("--key", action="append", default=[], metavar="KEY", help="an alias, stage or tag; repeatable")
    watch.add_argument("--after", type=int, metavar="EVENT", help="begin after this event (default: from now on)")
    watch.add_argument("--json", action="store_true", help="as lines of JSON")


def _target(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("ref", metavar="VERSION", help=_VERSION)
    _where(verb, "the alias that is to name it", "Staging, Production or Archived", required=True)
    _gates(verb)
    verb.add_argument("--archive-others", action="store_true", help="archive the versions that are in the stage")


def _where(verb: argparse.ArgumentParser, alias: str, stage: str, *, required: bool = False) -> None:
    where = verb.add_mutually_exclusive_group(required=required)
    where.add_argument("--alias", metavar="ALIAS", help=alias)
    where.add_argument("--stage", metavar="STAGE", help=stage)


def _gates(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="FILTER",
        help='such as "metrics.acc >= 0.9" or "metrics.acc >= champion.metrics.acc"; repeatable',
    )


def _comment(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--comment", default="", metavar="TEXT", help="why")


def _json(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--json", action="store_true", help="as JSON")


def _size(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def _number(text: str) -> int:
    """Of a version: `3`; or `iris/3`, as it is printed."""
    return int(text.rpartition("/")[2])


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError("must be more than 0")
    return number
