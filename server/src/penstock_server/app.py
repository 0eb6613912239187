"""One server process: its parts wired together, started in order, watched, stopped in order.

The one place where everybody meets. A process that is alone prepares its database; of several that share the ports
(supervisor.py) each is given it prepared.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import structlog

from penstock_server import ports
from penstock_server.blobs import S3Options, open_store
from penstock_server.blobs.store import Store
from penstock_server.blobs.watched import Watched
from penstock_server.config import Address, Settings
from penstock_server.core import mark
from penstock_server.core.access import Access
from penstock_server.core.artifacts import Artifacts
from penstock_server.core.assessments import Assessments
from penstock_server.core.changes import Changes
from penstock_server.core.datasets import Datasets
from penstock_server.core.experiments import Experiments
from penstock_server.core.logged_models import LoggedModels
from penstock_server.core.metrics import Metrics
from penstock_server.core.model_versions import ModelVersions
from penstock_server.core.promotions import Promotions
from penstock_server.core.registry import Registry
from penstock_server.core.registry_events import RegistryEvents
from penstock_server.core.runs import Runs
from penstock_server.core.streams import Streams
from penstock_server.core.sweep import Sweeper
from penstock_server.core.traces import Traces
from penstock_server.core.uploads import Uploads
from penstock_server.http import pages
from penstock_server.http.server import Server as HttpServer
from penstock_server.ingest.ingest import Ingest
from penstock_server.mlflow.artifacts import ArtifactEndpoints, ProxyEndpoints
from penstock_server.mlflow.assessments import AssessmentEndpoints
from penstock_server.mlflow.datasets import DatasetEndpoints
from penstock_server.mlflow.door import Door
from penstock_server.mlflow.experiments import ExperimentEndpoints
from penstock_server.mlflow.files import Files
from penstock_server.mlflow.logged_models import LoggedModelEndpoints
from penstock_server.mlflow.metrics import MetricEndpoints
from penstock_server.mlflow.model_versions import ModelVersionEndpoints
from penstock_server.mlflow.otlp import Otlp
from penstock_server.mlflow.registered_models import RegisteredModelEndpoints
from penstock_server.mlflow.runs import RunEndpoints
from penstock_server.mlflow.traces import TraceEndpoints
from penstock_server.mlflow.traces_of_2 import OldTraceEndpoints
from penstock_server.model.artifacts import S3Root
from penstock_server.model.errors import PenstockError, Unavailable
from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database
from penstock_server.postgres.embedded import Embedded, to_the_end
from penstock_server.rpc.artifacts import ArtifactService
from penstock_server.rpc.experiments import ExperimentService
from penstock_server.rpc.metrics import MetricService
from penstock_server.rpc.mlflow import MlflowService
from penstock_server.rpc.registry import RegistryService
from penstock_server.rpc.runs import RunService
from penstock_server.rpc.server import Server as RpcServer
from penstock_server.stop import Stop

log = structlog.get_logger(__name__)

# Tells the addresses, gRPC's and HTTP's, once the server is ready.
Announce = Callable[[Address, Address], None]

# All in seconds: how often readiness is looked at, and how often while there is none; how long a start waits for an
# external database; what calls that are no writers' streams get to end; what is kept back of the drain for closing
# the rest.
_LOOK = 0.5
_LOOK_UNREADY = 0.1
_DATABASE_PATIENCE = 60.0
_CALLS_GRACE = 2.0
_CLOSING = 1.0


class NotDrainedError(Exception):
    """The drain took too long; the message says what that means."""


@dataclass(slots=True)
class _State:
    """Where the process is. `problem` says why it is not ready, None when it is."""

    problem: str | None = "starting"
    stopping: bool = False
    store: Watched | None = None
    door: Door | None = None  # MLflow's, once there is a database
    files: Files | None = None  # of MLflow's clients

    def unready(self) -> str | None:
        """The reason that /ready gives."""
        return "stopping" if self.stopping else self.problem

    def store_problem(self) -> str | None:
        """What /ready tells of the artifacts' store."""
        return self.store.problem if self.store is not None else None


async def run_alone(settings: Settings, announce: Announce) -> None:
    """A server of one process, until SIGTERM or SIGINT."""
    stop = Stop()
    with stop.covered():
        ports.check("grpc_address", settings.grpc_address)
        http_sockets = ports.bind("http_address", settings.http_address)
        await serve(settings, prepared(settings), http_sockets, metrics_dir=None, stop=stop, announce=announce)


async def serve(
    settings: Settings,
    database: AbstractAsyncContextManager[str],
    http_sockets: list[socket.socket],
    *,
    metrics_dir: Path | None,
    stop: Stop,
    announce: Announce,
) -> None:
    """Serves until `stop`. `database` gives the address of the prepared database; there is a `metrics_dir` when other
    processes share the ports.
    """
    state = _State()
    grpc_server = RpcServer(
        settings.max_message_bytes, shared=metrics_dir is not None, artifacts_only=settings.artifacts_only
    )
    loopback = settings.http_address.loopback
    app = pages.app(
        state.unready,
        state.store_problem,
        lambda: state.door,
        lambda: state.files,
        metrics_dir,
        loopback=loopback,
        signed=signed(settings),
    )
    http_server = HttpServer(app, http_sockets)
    http_address = ports.bound(http_sockets, settings.http_address)
    grpc_address = Address(settings.grpc_address.host, grpc_server.bind(str(settings.grpc_address)))
    async with asyncio.TaskGroup() as group:
        group.create_task(http_server.run(), name="http")
        try:
            async with database as dsn, store(settings) as files:
                announced = partial(announce, grpc_address, http_address)
                await _work(settings, dsn, files, grpc_server, state=state, stop=stop, announce=announced)
        finally:
            http_server.stop()


@asynccontextmanager
async def prepared(settings: Settings) -> AsyncIterator[str]:
    """The address of a database that runs and has our tables: the embedded one, or the one configured."""
    if settings.database_url is not None:
        dsn = settings.database_url.get_secret_value()
        await _check_patiently(dsn)
        yield dsn
        return
    async with embedded(settings) as (database, applied):
        for name in applied:
            log.info("migrated", migration=name)
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(database.watch(), name="embedded-postgresql")
            yield database.dsn
            watching.cancel()


@asynccontextmanager
async def embedded(settings: Settings) -> AsyncIterator[tuple[Embedded, list[str]]]:
    """The embedded database, running and migrated, and what was applied. Stopped at the end."""
    database = Embedded(settings.data_dir / "postgres")
    try:
        await to_the_end(database.start)
        yield database, await migrations.migrate(database.dsn)
    finally:
        await to_the_end(database.stop)


@asynccontextmanager
async def store(settings: Settings) -> AsyncIterator[Store]:
    """What keeps the artifacts. Closed at the end."""
    opened = await open_store(settings.store, s3_options(settings))
    try:
        yield opened
    finally:
        await opened.close()


def resume_ms(settings: Settings) -> int:
    """How long an upload that broke off is kept."""
    return round(settings.artifacts_resume_hours * 3_600_000)


def signed(settings: Settings) -> bool:
    """Whether clients read and write the artifacts' store themselves, at addresses that we sign."""
    return settings.artifacts_mode == "direct" and isinstance(settings.store, S3Root)


def s3_options(settings: Settings) -> S3Options:
    """What the settings say of S3."""
    return S3Options(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        addressing=settings.s3_addressing,
        encryption=settings.s3_encryption,
        kms_key=settings.s3_kms_key,
        ca_bundle=settings.s3_ca_bundle,
    )


async def _work(
    settings: Settings,
    dsn: str,
    store: Store,
    grpc_server: RpcServer,
    *,
    state: _State,
    stop: Stop,
    announce: Callable[[], None],
) -> None:
    """Wires the parts on a prepared database, serves, and drains."""
    db = await Database.open(dsn, max_connections=settings.database_connections)
    try:
        ingest = Ingest(db, settings.ingest_buffer_bytes)
        changes = Changes(db)
        events = RegistryEvents(db)
        runs = Runs(db, ingest.run_ended)
        # Not watched: before a directory is made, to look into it is no trouble. The sweeper tells of what is one.
        sweeper = Sweeper(db, store, resume_ms(settings))
        watched = state.store = Watched(store)
        direct = settings.artifacts_mode == "direct"
        artifacts = Artifacts(db, watched, ingest.precedence, direct=direct, nudge=sweeper.nudge)
        uploads = Uploads(db, watched, ingest.precedence, direct=direct)
        limit = settings.max_message_bytes
        access, experiments = Access(db), Experiments(db)
        metrics = Metrics(db, ingest)
        datasets, logged_models = Datasets(db), LoggedModels(db)
        registry, versions = Registry(db), ModelVersions(db)
        traces = Traces(db, sweeper.nudge)
        proxy = ProxyEndpoints(artifacts, uploads, signed=signed(settings))
        endpoints = chain(
            proxy,
            ArtifactEndpoints(artifacts, runs),
            AssessmentEndpoints(Assessments(db)),
            TraceEndpoints(traces, artifacts),
            OldTraceEndpoints(traces),
            DatasetEndpoints(datasets),
            ExperimentEndpoints(experiments),
            LoggedModelEndpoints(logged_models, artifacts),
            MetricEndpoints(metrics, runs, logged_models),
            ModelVersionEndpoints(versions),
            RegisteredModelEndpoints(registry, versions),
            RunEndpoints(runs, datasets),
        )
        door = Door(access, endpoints, Otlp(traces))
        servicers = {
            "ArtifactService": ArtifactService(artifacts, uploads, limit),
            "ExperimentService": ExperimentService(experiments, limit),
            "RunService": RunService(runs, changes, limit),
            "RegistryService": RegistryService(registry, versions, Promotions(db), events, limit),
            "MlflowService": MlflowService(door),
            "MetricService": MetricService(metrics, Streams(db, ingest, runs), limit),
        }
        grpc_server.register(access, servicers)
        state.door = Door(access, proxy) if settings.artifacts_only else door
        state.files = Files(access, artifacts, uploads, versions)
        async with aclosing(uploads), asyncio.TaskGroup() as group:
            background = [
                group.create_task(_watch(state, db, ingest, grpc_server, announce), name="readiness"),
                group.create_task(sweeper.run(), name="sweeper"),
                group.create_task(mark.watch(db, watched), name="store"),
            ]
            if not settings.artifacts_only:
                background += [
                    group.create_task(ingest.run(), name="ingest"),
                    group.create_task(changes.run(), name="changes"),
                    group.create_task(events.run(), name="registry-events"),
                ]
            # What is here by now stays. To look through it for garbage, again and again, took a quarter of the time of
            # an answer that is made of many objects.
            gc.freeze()
            await grpc_server.start()
            stop.started()
            await stop.wait()
            state.stopping = True
            state.door = state.files = None
            await grpc_server.set_ready(ready=False)
            await _drain(settings, ingest, (changes, events), grpc_server)
            for task in background:
                task.cancel()
    finally:
        await grpc_server.stop(0)
        await db.close()


async def _watch(
    state: _State, db: Database, ingest: Ingest, grpc_server: RpcServer, announce: Callable[[], None]
) -> None:
    """Keeps the state and gRPC's health right; announces the server when it is ready for the first time."""
    announced = away = False
    while True:
        reason = await _away(db)
        if away and reason is None:
            ingest.database_answers()
        away = reason is not None
        before, state.problem = state.problem, reason or ingest.problem
        if state.stopping:
            return  # health says so already
        if state.problem != before:
            log.info("ready") if state.problem is None else log.warning("not ready", reason=state.problem)
            await grpc_server.set_ready(ready=state.problem is None)
        if state.unready() is None and not announced:
            announce()
            announced = True
        await asyncio.sleep(_LOOK if state.problem is None else _LOOK_UNREADY)


async def _away(db: Database) -> str | None:
    """Why the database cannot be used; None when it answers."""
    try:
        await db.ready()
    except PenstockError as error:
        return str(error)
    except Exception:
        # A database can be away in more ways than we know. That is no reason to die, nor to say that all is well.
        log.exception("the database cannot be used")
        return "the database cannot be used; the log says why"
    return None


async def _drain(
    settings: Settings, ingest: Ingest, watched: tuple[Changes, RegistryEvents], grpc_server: RpcServer
) -> None:
    """Commits and acknowledges what was accepted, then ends the calls. Raises NotDrainedError."""
    began = time.monotonic()
    seconds = settings.drain_seconds - _CLOSING
    try:
        await ingest.drain(seconds)
    except TimeoutError:
        raise NotDrainedError(
            f"what was accepted could not be committed within {settings.drain_seconds:g} s; it was not acknowledged, "
            "and its writers will send it again"
        ) from None
    for each in watched:
        each.stop()
    left = seconds - (time.monotonic() - began)
    await grpc_server.stop(max(0.0, min(_CALLS_GRACE, left)))
    log.info("drained", seconds=round(time.monotonic() - began, 3))


async def _check_patiently(dsn: str) -> None:
    """Checks the revision, waiting for a database that is still coming up. Raises FailedPrecondition, Unavailable."""
    deadline = time.monotonic() + _DATABASE_PATIENCE
    while True:
        try:
            return await migrations.check(dsn)
        except Unavailable as error:
            if time.monotonic() > deadline:
                raise
            log.warning("the database does not answer yet", error=str(error.__cause__ or error))
            await asyncio.sleep(2)
