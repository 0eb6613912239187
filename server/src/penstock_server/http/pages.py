"""What the HTTP door answers: is the process alive, is it ready, what does it measure; and MLflow's clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock_server.http import mlflow, mlflow_artifacts
from penstock_server.http.origin import Guard
from penstock_server.mlflow.door import Door
from penstock_server.mlflow.files import Files


def app(
    unready: Callable[[], str | None],
    store_problem: Callable[[], str | None],
    open_door: Callable[[], Door | None],
    open_files: Callable[[], Files | None],
    metrics_dir: Path | None,
    *,
    loopback: bool,
    signed: bool,
) -> Starlette:
    """The pages. `unready` says why the server is not ready, None when it is; `store_problem` what is wrong with the
    artifacts' store; `open_door` and `open_files` are what answers MLflow's clients, None as long as nothing can;
    `metrics_dir` is where the worker processes of one server put their numbers, None when there is one process;
    `loopback` says that only this machine can reach the server, and `signed` that MLflow's clients read and write the
    artifacts' store themselves.
    """

    async def health(_: Request) -> Response:
        return PlainTextResponse("OK")  # as MLflow answers

    async def home(_: Request) -> Response:
        return PlainTextResponse("Penstock. There are no pages to look at yet: `penstock runs list` shows the runs.\n")

    async def ready(_: Request) -> Response:
        if reason := unready():
            return JSONResponse({"status": "not ready", "reason": reason}, status_code=503)
        # All replicas have one store: to take them away with it would lose metrics as well, and help nobody.
        return JSONResponse({"status": "ready", "artifact_store": store_problem() or "works"})

    async def metrics(_: Request) -> Response:
        return Response(
            await run_in_threadpool(generate_latest, _registry(metrics_dir)), media_type=CONTENT_TYPE_LATEST
        )

    ours = [Route("/", home), Route("/health", health), Route("/ready", ready), Route("/metrics", metrics)]
    guard = Middleware(Guard, loopback=loopback)
    theirs = [*mlflow_artifacts.routes(open_files), *mlflow.routes(open_door, signed=signed)]
    return Starlette(routes=[*ours, *theirs], middleware=[guard])


def _registry(metrics_dir: Path | None) -> CollectorRegistry:
    if metrics_dir is None:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(metrics_dir))  # type: ignore[no-untyped-call]
    return registry
