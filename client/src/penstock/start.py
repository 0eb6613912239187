"""`start_run`: from what people give to a run that is being logged to."""

from __future__ import annotations

import os
import time as clock

from penstock import address as where
from penstock.address import parse_address
from penstock.given import put, sort_given
from penstock.names import NAME_LIMIT, fit, text_problem
from penstock.origin import find_origin, rank
from penstock.run_ids import new_run_id, parse_run_id, shared_run_id
from penstock.session import Pace
from penstock.spool.retention import Limits
from penstock.sync import adopt_in_background
from penstock.tracking import ActiveRun, Plan, current
from penstock.v1 import runs_pb2

_FINISH_TIMEOUT = 120.0
_LIMITS = Limits()


def start_run(
    experiment: str | None = None,
    name: str | None = None,
    params: object = None,
    tags: object = None,
    *,
    run_id: str | None = None,
    run_key: str | None = None,
    parent: ActiveRun | str | None = None,
    nested: bool = False,
    url: str | None = None,
    workspace: str | None = None,
    mode: str | None = None,
    spool_dir: str | os.PathLike[str] | None = None,
    spool_bytes: int = _LIMITS.disk,
    buffer_bytes: int = _LIMITS.memory,
    durability: str = "cache",
    finish_timeout: float = _FINISH_TIMEOUT,
    pace: Pace | None = None,
) -> ActiveRun:
    """Begin a run, or go on with one. Returns at once, whether the server is there or not.

    Args:
        experiment: its name; made when there is none. None: "Default".
        name: for people. None: the server makes one up.
        params: a dict, argparse Namespace, dataclass or what has `keys()`; as text, nested dicts flattened with `/`.
        tags: set as text, beside those that tell where the run comes from.
        run_id: goes on with this run, as one more writer, and it is RUNNING again; makes it when there is none.
        run_key: any text that all processes of a job know, such as its id in the scheduler: they log into one run.
        parent: the run that this one is part of.
        nested: the parent is the run of the innermost `with` around.
        url: the server, as host:port. None: PENSTOCK_URL, or else localhost:50051.
        workspace: None: PENSTOCK_WORKSPACE, or else "default".
        mode: "online", or "offline": what is logged is only spooled, and `penstock sync` sends it later. None:
            PENSTOCK_MODE, or else online.
        spool_dir: what is logged is written to files in there, and sent from there. None: PENSTOCK_SPOOL_DIR, or else
            a directory of this user's.
        spool_bytes: how much of the disk this process may take for the run, and as much again for files.
        buffer_bytes: how much is kept in memory where the disk does not take it; of files, as much again.
        durability: "cache": what was logged outlives the process at once, and a loss of power after a second.
            "fsync": each call waits for the disk.
        finish_timeout: how many seconds the end of the `with`, or of the process, waits for the server.
        pace: timeouts and sizes of the stream.

    Raises:
        ValueError: an address, id, experiment name, mode or size that can never be right.
    """
    address = parse_address(url, workspace)
    if run_id is not None and run_key is not None:
        raise ValueError("give run_id or run_key, not both")
    mode = mode or where.mode() or "online"
    if mode not in ("online", "offline"):
        raise ValueError(f"the mode (mode= or PENSTOCK_MODE) is online or offline, not {mode!r}")
    if not isinstance(spool_bytes, int) or not isinstance(buffer_bytes, int) or min(spool_bytes, buffer_bytes) < 1:
        raise ValueError(f"spool_bytes and buffer_bytes are numbers of bytes, not {spool_bytes!r} and {buffer_bytes!r}")
    if not isinstance(finish_timeout, (int, float)):
        raise ValueError(f"finish_timeout is a number of seconds, not {finish_timeout!r}")  # noqa: TRY004
    if durability not in ("cache", "fsync"):
        raise ValueError(f"durability {durability!r} is neither cache nor fsync")
    if experiment is not None and (why := text_problem(experiment, NAME_LIMIT)):
        raise ValueError(f"experiment: {why}")
    if parent is None and nested:
        parent = current()
    parent_id = parent.id if isinstance(parent, ActiveRun) else parent and parse_run_id(parent)
    if run_key is not None:
        made = shared_run_id(address.workspace, experiment or "", run_key)
    else:
        made = new_run_id() if run_id is None else parse_run_id(run_id)

    origin = find_origin()
    create = runs_pb2.CreateRunRequest(
        run_id=made,
        experiment_name=experiment or "",
        name=fit(name or "", NAME_LIMIT),
        status=runs_pb2.RUN_STATUS_RUNNING,
        user=origin.user,
        source_name=origin.source_name,
        git_commit=origin.git_commit,
        parent_run_id=parent_id or "",
        start_time_ms=clock.time_ns() // 1_000_000,
        tags=origin.tags,
    )
    good, problems = sort_given(params, tags)
    known = run_id is not None or run_key is not None
    later = put(create, good, everything_later=known)

    plan = Plan(
        address,
        made,
        create,
        pace or Pace(),
        Limits(disk=spool_bytes, memory=buffer_bytes),
        spool_dir or where.spool_dir(),
        durable=durability == "fsync",
        offline=mode == "offline",
    )
    resume = run_id is not None and rank()[0] == 0
    run = ActiveRun(plan, origin.host, shared=known, resume=resume, finish_timeout=finish_timeout)
    run._begin()
    run._report(problems)
    for update in later:
        run._spool.update(update)
    if run._spool.place is not None and not plan.offline:
        adopt_in_background(run._spool.place.parent, address)
    return run


def attach(run_id: str, address: where.Address, finish_timeout: float = _FINISH_TIMEOUT) -> ActiveRun:
    """One more writer of a run that there is, for who keeps the run otherwise: its name, tags and status stay as they
    are, at the end, too. Raises ValueError.
    """
    create = runs_pb2.CreateRunRequest()  # empty: the run is not made where there is none
    plan = Plan(address, parse_run_id(run_id), create, Pace(), _LIMITS, where.spool_dir(), durable=False, offline=False)
    run = ActiveRun(plan, find_origin().host, shared=True, resume=False, finish_timeout=finish_timeout)
    run._attached = True
    run._begin()
    if run._spool.place is not None:
        adopt_in_background(run._spool.place.parent, address)
    return run
