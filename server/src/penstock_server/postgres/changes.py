"""What tells every replica that runs have changed: NOTIFY in the transaction that does it, and what that says."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection

import structlog

from penstock_server.model.access import WorkspaceId
from penstock_server.model.changes import Change, RunChange, RunRef
from penstock_server.model.errors import NotFound
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.runs import RunId, format_run_id
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.listener import Listener

CHANNEL = "penstock_changes"

# A notification holds less than 8,000 bytes; a run in it has at most 65.
_RUNS_PER_NOTIFICATION = 100

# Several at once; PostgreSQL delivers them at COMMIT, and not at all when there is none.
_NOTIFY = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"

log = structlog.get_logger(__name__)


async def notify_run(conn: Connection, run: RunRef, kind: RunChange = RunChange.RUN) -> None:
    """Tells of a run when this transaction commits."""
    await conn.execute(_NOTIFY, CHANNEL, [f"{kind.value} {_written(run)}"])


async def notify_points(conn: Connection, runs: Collection[RunRef]) -> None:
    """Tells that these runs have new points. Call it after their commit, with many: NOTIFY serialises commits."""
    written = [_written(run) for run in runs]
    payloads = [
        f"{RunChange.METRICS.value} {' '.join(written[start : start + _RUNS_PER_NOTIFICATION])}"
        for start in range(0, len(written), _RUNS_PER_NOTIFICATION)
    ]
    await conn.execute(_NOTIFY, CHANNEL, payloads)


async def notify_experiment(conn: Connection, workspace_id: WorkspaceId, experiment_id: ExperimentId) -> None:
    """Tells, when this transaction commits, that all runs of an experiment have changed."""
    await conn.execute(_NOTIFY, CHANNEL, [f"{RunChange.RUN.value} {workspace_id}:{experiment_id}:"])


# One statement each, however many are watched.
_EXPERIMENTS = "SELECT id FROM experiments WHERE workspace_id = $1 AND id = ANY($2::bigint[])"
_RUNS = "SELECT workspace_id, experiment_id, id FROM runs WHERE workspace_id = $1 AND id = ANY($2::uuid[])"


async def require_all(conn: Connection, workspace_id: WorkspaceId, experiment_ids: Collection[ExperimentId]) -> None:
    """Returns when all are there, whatever their stage. Raises NotFound."""
    if not experiment_ids:
        return
    found = {row[0] for row in await conn.fetch(_EXPERIMENTS, workspace_id, experiment_ids)}
    for experiment_id in experiment_ids:
        if experiment_id not in found:
            raise NotFound("experiment", str(experiment_id))


async def locate_all(conn: Connection, workspace_id: WorkspaceId, run_ids: Collection[RunId]) -> list[RunRef]:
    """Where these runs belong, whatever their stage. Raises NotFound."""
    if not run_ids:
        return []
    refs = [RunRef(*row) for row in await conn.fetch(_RUNS, workspace_id, run_ids)]
    found = {ref.run_id for ref in refs}
    for run_id in run_ids:
        if run_id not in found:
            raise NotFound("run", format_run_id(run_id))
    return refs


def listener(db: Database, heard: Callable[[Change], None], connected: Callable[[], None]) -> Listener:
    """Hears of runs; see Listener."""

    def receive(payload: str) -> None:
        for change in _parse(payload):
            heard(change)

    return Listener(db, CHANNEL, receive, connected)


def _written(run: RunRef) -> str:
    return f"{run.workspace_id}:{run.experiment_id}:{run.run_id.hex}"


def _parse(payload: str) -> list[Change]:
    """What a notification tells. A newer release may tell what this one does not know; that is passed over."""
    try:
        kind, *runs = payload.split(" ")
        changes = []
        for written in runs:
            workspace_id, experiment_id, run_id = written.split(":")
            changes.append(
                Change(
                    RunChange(int(kind)),
                    WorkspaceId(int(workspace_id)),
                    ExperimentId(int(experiment_id)),
                    RunId(uuid.UUID(run_id)) if run_id else None,
                )
            )
    except ValueError:
        log.warning("a notification of an unknown kind was passed over", payload=payload[:100])
        return []
    return changes
