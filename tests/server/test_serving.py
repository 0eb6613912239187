"""A server process from start to end, whatever comes between."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import grpc
import psutil
import pytest
from failing_calls import fail
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock.v1 import experiments_pb2, metrics_pb2, runs_pb2
from penstock.v1.experiments_pb2_grpc import ExperimentServiceStub
from penstock.v1.metrics_pb2_grpc import MetricServiceStub
from penstock.v1.runs_pb2_grpc import RunServiceStub
from penstock_server import app
from penstock_server.ingest.ingest import Ingest
from penstock_server.postgres import migrations
from penstock_server.postgres.database import Database
from penstock_server.postgres.embedded import Embedded
from penstock_server.rpc.server import SERVICES
from penstock_server.rpc.server import Server as RpcServer
from servers import ServerProcess, clean_environment, command

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def health(channel: grpc.Channel, service: str = "") -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


def postmaster(server: ServerProcess) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "postgres/data/postmaster.pid").read_text().split()[0]))


def gone(process: psutil.Process) -> bool:
    """Ended, whether or not its parent has noticed."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def listening() -> tuple[socket.socket, str]:
    """A socket that listens, and its address."""
    taken = socket.create_server(("127.0.0.1", 0))
    return taken, f"127.0.0.1:{taken.getsockname()[1]}"


def wait(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def test_it_starts_without_configuration_and_stops_with_sigterm(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        assert server.get("/health") == (200, "OK")
        assert server.get("/ready") == (200, '{"status":"ready","artifact_store":"works"}')
        with server.channel() as channel:
            assert health(channel) == SERVING
            found = ExperimentServiceStub(channel).GetExperiment(
                experiments_pb2.GetExperimentRequest(experiment_id="0")
            )
            assert found.experiment.name == "Default"
            database = postmaster(server)
        assert server.stop() == 0
        assert gone(database)
        assert "Traceback" not in server.log
        assert [
            event["event"] for event in server.events if event["level"] != "info" and "as root" not in event["event"]
        ] == []


def test_what_it_says_is_in_the_log_and_nothing_else(data_dir: Path) -> None:
    """No chatter of libraries, of the embedded PostgreSQL's package least of all."""
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        server.stop()
        lines = [line for line in server.log.splitlines() if not line.startswith("{")]
        assert lines == []
        assert "XDG_RUNTIME_DIR" not in server.log
        (serving,) = [event for event in server.events if event["event"] == "serving"]
        assert serving["database"] == "embedded PostgreSQL"
        assert serving["data_dir"] == str(data_dir)


def test_a_person_is_told_where_everything_is(data_dir: Path) -> None:
    with ServerProcess(data_dir, "--log-format", "console") as server:
        server.start()
        wait(lambda: "Ctrl-C stops it." in server.log)
        for expected in (
            "gRPC      127.0.0.1:",
            "HTTP      http://127.0.0.1:",
            str(data_dir),
            "export PENSTOCK_URL=127.0.0.1:",
        ):
            assert expected in server.log
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 0


def test_data_and_sockets_are_private(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        modes = {
            path: stat.S_IMODE((data_dir / path).stat().st_mode) for path in ("", "lock", "postgres", "postgres/data")
        }
        assert modes[""] == (0o711 if os.geteuid() == 0 else 0o700)
        assert (modes["lock"], modes["postgres"], modes["postgres/data"]) == (0o600, 0o700, 0o700)
        assert all(not connection.laddr for connection in postmaster(server).net_connections("inet"))


def test_reflection_tells_every_service(channel: grpc.Channel) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10)
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {service.full_name for service in SERVICES} | {"grpc.health.v1.Health"}


def test_health_is_told_of_each_service(channel: grpc.Channel) -> None:
    assert [health(channel, service.full_name) for service in SERVICES] == [SERVING] * len(SERVICES)
    with pytest.raises(grpc.RpcError) as caught:
        health(channel, "penstock.v1.NoService")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_metrics_count_calls_by_method_and_status(server: ServerProcess, experiments: ExperimentServiceStub) -> None:
    with pytest.raises(grpc.RpcError):
        experiments.GetExperiment(experiments_pb2.GetExperimentRequest(experiment_id="98765"))
    name = "penstock.v1.ExperimentService.GetExperiment"
    # A call is counted when it is answered, of which who called may hear before.
    wait(lambda: f'penstock_request_seconds_count{{method="{name}"}}' in server.get("/metrics")[1])
    status, text = server.get("/metrics")
    assert status == 200
    assert f'penstock_requests_total{{method="{name}",status="NOT_FOUND"}}' in text
    assert "penstock_ingest_buffer_bytes 0.0" in text


def test_a_page_that_is_not_there(server: ServerProcess) -> None:
    assert server.get("/nothing")[0] == 404


def test_request_ids_come_back(experiments: ExperimentServiceStub) -> None:
    request = experiments_pb2.GetExperimentRequest(experiment_id="0")
    _, call = experiments.GetExperiment.with_call(request, metadata=[("x-request-id", "mine-7")])
    assert dict(call.trailing_metadata())["x-request-id"] == "mine-7"
    _, call = experiments.GetExperiment.with_call(request)
    made = dict(call.trailing_metadata())["x-request-id"]
    assert len(made) == 32
    _, call = experiments.GetExperiment.with_call(request, metadata=[("x-request-id", "x" * 129)])
    assert dict(call.trailing_metadata())["x-request-id"] != "x" * 129
    bad = experiments_pb2.GetExperimentRequest(experiment_id="no number")
    error = fail(experiments.GetExperiment, bad, metadata=[("x-request-id", "mine-8")])
    assert dict(error.trailing_metadata())["x-request-id"] == "mine-8"


def test_a_stream_tells_its_request_id_at_its_beginning(runs: RunServiceStub) -> None:
    watch = runs.WatchRuns(runs_pb2.WatchRunsRequest(changes_only=True), metadata=[("x-request-id", "mine-9")])
    assert dict(watch.initial_metadata())["x-request-id"] == "mine-9"
    assert next(watch).synced
    watch.cancel()


def test_a_bug_is_told_by_its_request_id_alone(postgres, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()

        async def break_it() -> None:
            conn = await asyncpg.connect(dsn)
            await conn.execute("ALTER TABLE experiment_tags RENAME TO gone")
            await conn.close()

        asyncio.run(break_it())
        with server.channel() as channel:
            request = experiments_pb2.GetExperimentRequest(experiment_id="0")
            method = ExperimentServiceStub(channel).GetExperiment
            error = fail(method, request, metadata=[("x-request-id", "the-bug")])
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "internal error; request id the-bug"
        (logged,) = [event for event in server.events if event.get("request_id") == "the-bug"]
        assert logged["level"] == "error"
        assert logged["method"] == "penstock.v1.ExperimentService.GetExperiment"
        assert "experiment_tags" in logged["exception"]
        assert server.get("/health")[0] == 200
    postgres.drop(dsn)


def test_a_deadline_ends_the_work_in_the_database(postgres, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")

    async def main(server: ServerProcess) -> None:
        conn = await asyncpg.connect(dsn)
        busy = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with server.channel() as channel:
            stub = ExperimentServiceStub(channel)
            made = stub.CreateExperiment(experiments_pb2.CreateExperimentRequest(name="held")).experiment
            async with conn.transaction():
                await conn.execute("SELECT FROM experiments WHERE name = 'held' FOR UPDATE")
                request = experiments_pb2.UpdateExperimentRequest(experiment_id=made.experiment_id, name="new")
                call = stub.UpdateExperiment.future(request, timeout=2)
                wait_for_lock = [await conn.fetchval(busy)]
                while not wait_for_lock[-1] and not call.done():
                    wait_for_lock.append(await conn.fetchval(busy))
                assert wait_for_lock[-1] == 1
                assert await asyncio.to_thread(call.code) is grpc.StatusCode.DEADLINE_EXCEEDED
                async with asyncio.timeout(20):
                    while await conn.fetchval(busy):
                        await asyncio.sleep(0.02)
        await conn.close()
        text = server.get("/metrics")[1]
        assert (
            'penstock_requests_total{method="penstock.v1.ExperimentService.UpdateExperiment",status="CANCELLED"} 1.0'
            in text
        )

    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        asyncio.run(main(server))
    postgres.drop(dsn)


def test_two_servers_do_not_share_a_directory(data_dir: Path) -> None:
    with ServerProcess(data_dir) as first:
        first.start().wait_ready()
        code, out, err = command("serve", "--data-dir", str(data_dir), "--grpc-address", "127.0.0.1:0")
        assert code == 1
        assert f"{data_dir} is in use by another Penstock server (process {first.pid}); stop that" in out + err
        assert "Traceback" not in err
        assert first.get("/ready")[0] == 200


def test_after_kill_9_the_next_start_adopts_the_database(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            ExperimentServiceStub(channel).CreateExperiment(experiments_pb2.CreateExperimentRequest(name="kept"))
        database = postmaster(server)
        server.kill()
        assert database.is_running()
        addresses = server.grpc_address, server.http_address
        server.start().wait_ready()
        assert postmaster(server) == database
        assert (server.grpc_address, server.http_address) == addresses
        with server.channel() as channel:
            request = experiments_pb2.GetExperimentByNameRequest(name="kept")
            assert ExperimentServiceStub(channel).GetExperimentByName(request).experiment.name == "kept"
        assert server.stop() == 0
        assert gone(database)


def test_a_database_that_dies_is_started_again(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            stub = ExperimentServiceStub(channel)
            stub.CreateExperiment(experiments_pb2.CreateExperimentRequest(name="kept"))
            database = postmaster(server)
            database.kill()
            server.wait_event("PostgreSQL is gone, starting it again")
            wait(lambda: postmaster_restarted(server, database.pid))
            wait(lambda: answers(stub))  # what /ready says may be half a second old
            wait(lambda: server.get("/ready")[0] == 200)
            request = experiments_pb2.GetExperimentByNameRequest(name="kept")
            assert stub.GetExperimentByName(request, wait_for_ready=True).experiment.name == "kept"
        assert server.stop() == 0


def answers(stub: ExperimentServiceStub) -> bool:
    try:
        stub.GetExperiment(experiments_pb2.GetExperimentRequest(experiment_id="0"), timeout=10)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


def postmaster_restarted(server: ServerProcess, before: int) -> bool:
    try:
        return postmaster(server).pid != before
    except (FileNotFoundError, IndexError, psutil.NoSuchProcess):
        return False


def test_readiness_follows_an_external_database(tmp_path: Path) -> None:
    """Away for a while, it is no reason to die."""
    external = Embedded(tmp_path / "external")
    with ServerProcess(tmp_path / "data", dsn=external.dsn) as server:
        try:
            external.start()
            asyncio.run(migrations.migrate(external.dsn))
            server.start().wait_ready()
            external.stop()
            wait(lambda: server.get("/ready")[0] == 503)
            assert "database" in server.get("/ready")[1]
            with server.channel() as channel:
                wait(lambda: health(channel) == NOT_SERVING)
                with pytest.raises(grpc.RpcError) as caught:
                    ExperimentServiceStub(channel).GetExperiment(
                        experiments_pb2.GetExperimentRequest(experiment_id="0")
                    )
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert int(dict(caught.value.trailing_metadata())["retry-after-ms"]) > 0
                external.start()
                wait(lambda: server.get("/ready")[0] == 200)
                wait(lambda: health(channel) == SERVING)
            assert server.stop() == 0
        finally:
            external.stop()


def test_a_database_that_refuses_us_for_a_while_is_no_reason_to_die(postgres, data_dir: Path) -> None:
    dsn = postgres.create(template="penstock_template")
    name = dsn.partition("?")[0].rpartition("/")[2]
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        wait(lambda: server.get("/ready")[0] == 503)
        postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait(lambda: server.get("/ready")[0] == 200)
        assert server.stop() == 0
    postgres.drop(dsn)


def test_a_database_that_is_not_there_for_a_while_is_no_reason_to_die(postgres, data_dir: Path) -> None:
    """As while one restored from a backup takes its place: who listens and who commits both go on afterwards."""
    dsn = postgres.create(template="penstock_template")
    name = dsn.partition("?")[0].rpartition("/")[2]
    with ServerProcess(data_dir, dsn=dsn) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run = RunServiceStub(channel).CreateRun(runs_pb2.CreateRunRequest()).run
            point = metrics_pb2.LogBatchRequest(run_id=run.run_id, metrics=[metrics_pb2.Metric(name="a", value=1)])
            log_batch = MetricServiceStub(channel).LogBatch
            watch = RunServiceStub(channel).WatchRuns(
                runs_pb2.WatchRunsRequest(run_ids=[run.run_id], changes_only=True), timeout=60
            )
            assert next(watch).synced
            log_batch(point)
            while runs_pb2.RUN_CHANGE_METRICS not in next(watch).changes:
                pass  # what was committed before is told before; and nothing of it is left to be told meanwhile
            postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            postgres.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'")
            postgres.execute(f"ALTER DATABASE {name} RENAME TO {name}_away")
            assert fail(log_batch, point).code() is grpc.StatusCode.UNAVAILABLE
            server.wait_event("listening for changes failed and is tried again")
            wait(lambda: server.get("/ready")[0] == 503)
            postgres.execute(f"ALTER DATABASE {name}_away RENAME TO {name}")
            postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            wait(lambda: server.get("/ready")[0] == 200)
            assert next(watch).run.run_id == run.run_id
            log_batch(point)
        assert server.stop() == 0
    postgres.drop(dsn)


def test_an_external_database_on_another_revision_is_refused(postgres, tmp_path: Path) -> None:
    dsn = postgres.create()
    env = {"PENSTOCK_DATABASE_URL": dsn}
    arguments = ("--data-dir", str(tmp_path / "data"), "--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
    code, out, err = command("serve", *arguments, env=env)
    assert code == 1
    assert "the database lacks 0001_tracking" in out + err
    assert "run: penstock-server migrate" in out + err
    assert "Traceback" not in err
    code, out, err = command("migrate", *arguments, env=env)
    assert code == 0
    assert "applied 0001_tracking" in out
    assert command("migrate", *arguments, env=env)[:2] == (0, "nothing to do\n")
    with ServerProcess(tmp_path / "data", dsn=dsn) as server:
        assert server.start().wait_ready().stop() == 0
    postgres.drop(dsn)


def test_a_wrong_password_is_told_and_the_password_is_not(tmp_path: Path) -> None:
    taken, address = listening()  # accepts, and says nothing
    taken.close()
    url = f"postgresql://me:g3heim@{address}/penstock"
    code, out, err = command("doctor", "--data-dir", str(tmp_path / "data"), env={"PENSTOCK_DATABASE_URL": url})
    assert code == 1
    assert f"postgresql://me:***@{address}/penstock" in out
    assert "g3heim" not in out + err


@pytest.mark.parametrize("which", ["grpc", "http"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use_is_told_before_anything_is_started(tmp_path: Path, which: str, workers: str) -> None:
    taken, address = listening()
    with taken:
        other = {"grpc": "http", "http": "grpc"}[which]
        arguments = (f"--{which}-address", address, f"--{other}-address", "127.0.0.1:0", "--workers", workers)
        code, out, err = command("serve", "--data-dir", str(tmp_path / "data"), *arguments)
    assert code == 1
    assert f"{address} is in use by another program; stop that, or choose another --{which}-address" in out + err
    assert "Traceback" not in err
    assert not (tmp_path / "data/postgres").exists()


def test_an_address_that_others_can_reach_is_warned_of(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.grpc_address = "0.0.0.0:0"
        server.start().wait_ready()
        warnings = [event for event in server.events if event["level"] == "warning"]
        assert [warning["setting"] for warning in warnings if "no accounts yet" in warning["event"]] == ["grpc_address"]


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, out, err = command("serve", "--data-dir", str(tmp_path / "file" / "data"))
    assert code == 1
    assert "cannot be made: Not a directory; choose another with --data-dir" in out + err
    assert "Traceback" not in err


def test_the_drain_commits_what_was_accepted_and_ends_the_streams(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run = RunServiceStub(channel).CreateRun(runs_pb2.CreateRunRequest()).run
            watch = RunServiceStub(channel).WatchRuns(runs_pb2.WatchRunsRequest(run_ids=[run.run_id]))
            while not next(watch).synced:
                pass
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watching).status == SERVING
            stop_writing = threading.Event()

            def requests():
                hello = metrics_pb2.Hello(protocol=1, run_id=run.run_id, writer_id=b"w" * 16, epoch=1)
                yield metrics_pb2.StreamMetricsRequest(hello=hello)
                shape = metrics_pb2.Shape(names=["loss"])
                for seq in range(1, 10_000_000):
                    batch = metrics_pb2.Batch(
                        first_seq=seq, count=1, shapes=[0], steps=[seq], times_ms=[1], values=[0.5]
                    )
                    if seq == 1:
                        batch.new_shapes.append(shape)
                    yield metrics_pb2.StreamMetricsRequest(batch=batch)
                    if stop_writing.wait(0.001):
                        return

            acknowledged, went_away = 0, False
            stream = MetricServiceStub(channel).StreamMetrics(requests())
            for answer in stream:
                kind = answer.WhichOneof("message")
                if kind == "ack":
                    if acknowledged == 0:
                        server.signal(signal.SIGTERM)
                    acknowledged = answer.ack.hwm
                elif kind == "go_away":
                    went_away = True
                    stop_writing.set()
            assert went_away
            assert next(watching).status == NOT_SERVING
            with pytest.raises(grpc.RpcError) as caught:
                list(watch)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert server.wait_exit() == 0
        server.start().wait_ready()
        with server.channel() as channel:
            stored = RunServiceStub(channel).GetRun(runs_pb2.GetRunRequest(run_id=run.run_id)).run
            assert [metric.count for metric in stored.metrics] == [acknowledged]


def test_a_second_signal_ends_it_at_once(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start().wait_ready()
        with server.channel() as channel:
            run = RunServiceStub(channel).CreateRun(runs_pb2.CreateRunRequest()).run

            def requests():
                hello = metrics_pb2.Hello(protocol=1, run_id=run.run_id, writer_id=b"w" * 16, epoch=1)
                yield metrics_pb2.StreamMetricsRequest(hello=hello)
                forever.wait()

            forever = threading.Event()
            stream = MetricServiceStub(channel).StreamMetrics(requests())
            assert next(stream).HasField("welcome")  # a writer that will not leave by itself
            server.signal(signal.SIGTERM)
            server.wait_event("stopping")
            assert server.get("/ready") == (503, '{"status":"not ready","reason":"stopping"}')
            assert server.get("/health")[0] == 200
            server.signal(signal.SIGTERM)  # so soon after the first it is the same wish
            time.sleep(0.6)
            assert server.get("/health")[0] == 200
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 128 + signal.SIGTERM
            forever.set()


async def test_a_stop_while_readiness_is_looked_at_stays_one(db: Database) -> None:
    server = RpcServer(1 << 20, shared=False)
    port = server.bind("127.0.0.1:0")
    await server.start()
    state, announced = app._State(), []
    try:
        async with asyncio.timeout(30), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            async with db._probing:  # the look waits
                looking = asyncio.create_task(
                    app._watch(state, db, Ingest(db, 1 << 20), server, lambda: announced.append("ready"))
                )
                await asyncio.sleep(0.05)
                state.stopping = True
                await server.set_ready(ready=False)
            await looking
            stub = health_pb2_grpc.HealthStub(channel)
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
    finally:
        await server.stop(0)
    assert announced == []


def test_a_stop_during_the_start_leaves_nothing_behind(data_dir: Path) -> None:
    with ServerProcess(data_dir) as server:
        server.start()
        wait((data_dir / "postgres").exists)
        assert server.stop() == 0
        assert not (data_dir / "postgres/data/postmaster.pid").exists()
        assert "Traceback" not in server.log


def test_the_environment_is_clean() -> None:
    assert not [name for name in clean_environment() if name.startswith(("PENSTOCK_", "PG"))]
