"""Watches and waits of the registry go on over servers that are killed and started again: each event once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

import penstock
from penstock import errors
from servers import ServerProcess


@pytest.fixture
def own_server(dsn: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """One that the test may kill."""
    with ServerProcess(tmp_path / "server", dsn=dsn) as server:
        yield server.start().wait_ready()


@pytest.fixture
def client(own_server: ServerProcess) -> Iterator[penstock.Client]:
    """It has a model with a few versions."""
    with penstock.Client(own_server.grpc_address) as client:
        client.registry.create_model("iris")
        for _ in range(5):
            client.registry.create_version("iris", source="s3://elsewhere")
        yield client


def moved(server: ServerProcess, alias: str, *versions: int) -> None:
    """By another client, which has not seen the server go: what is not repeated by itself would fail for a while."""
    with penstock.Client(server.grpc_address) as client:
        for version in versions:
            client.registry.set_alias("iris", alias, version)


@pytest.mark.parametrize("relayed", [False, True])
def test_a_watch_goes_on_where_it_was(
    own_server: ServerProcess, client: penstock.Client, monkeypatch: pytest.MonkeyPatch, *, relayed: bool
) -> None:
    if relayed:  # as in a forked child
        monkeypatch.setattr("penstock.forks.use_grpc", lambda: False)
    registry = client.registry
    watch = registry.watch("iris", keys="champion")
    registry.set_alias("iris", "champion", 1)
    told = [next(watch)]
    own_server.kill()
    own_server.start().wait_ready()
    moved(own_server, "other", 1)
    moved(own_server, "champion", 2, 3)
    told += [next(watch), next(watch)]
    assert [each.version for each in told] == [1, 2, 3]
    assert told == registry.events("iris", key="champion", oldest_first=True)


async def test_so_does_one_of_asyncio(own_server: ServerProcess, client: penstock.Client) -> None:
    async with penstock.AsyncClient(own_server.grpc_address) as asynchronous:
        watch = asynchronous.registry.watch("iris", after=0)
        told = [await anext(watch) for _ in range(6)]
        await asyncio.to_thread(own_server.kill)
        waiting = asyncio.create_task(anext(watch))  # type: ignore[arg-type]  # a coroutine
        await asyncio.to_thread(own_server.start().wait_ready)
        await asyncio.to_thread(moved, own_server, "champion", 1)
        told.append(await waiting)
        await watch.aclose()  # type: ignore[attr-defined]
        assert told == await asynchronous.registry.events("iris", oldest_first=True)


def test_a_wait_outlives_the_server(own_server: ServerProcess, client: penstock.Client) -> None:
    registry = client.registry
    registry.set_alias("iris", "champion", 1)
    watch = registry.watch("iris")
    found: list[penstock.ModelVersion] = []
    waiting = threading.Thread(
        target=lambda: found.append(registry.wait_for("iris", alias="champion", other_than=1, timeout=120))
    )
    waiting.start()
    own_server.stop()
    own_server.start().wait_ready()
    moved(own_server, "champion", 4)
    waiting.join(120)
    assert found == [registry.get_version("iris", 4)]
    assert next(watch).version == 4


FORGET = """
ALTER TABLE registry_events DISABLE TRIGGER ALL;
DELETE FROM registry_events WHERE id > 3;
ALTER TABLE registry_events ENABLE TRIGGER ALL;
"""


async def test_a_restored_database_ends_a_watch_and_no_wait(
    own_server: ServerProcess, client: penstock.Client, dsn: str
) -> None:
    registry = client.registry
    registry.set_alias("iris", "champion", 1)
    watch = registry.watch("iris")
    async with penstock.AsyncClient(own_server.grpc_address) as other:
        wait = asyncio.create_task(other.registry.wait_for("iris", version=6, timeout=120))
        waiting = threading.Thread(target=lambda: registry.wait_for("iris", alias="champion", version=2, timeout=120))
        waiting.start()
        await asyncio.to_thread(own_server.stop)
        conn = await asyncpg.connect(dsn)
        await conn.execute(FORGET)
        await conn.close()
        await asyncio.to_thread(lambda: own_server.start().wait_ready())
        with pytest.raises(
            errors.InvalidArgument, match=r"event \d+ has not happened: this history ends with event 3;"
        ):
            await asyncio.to_thread(next, watch)
        registry.create_version("iris", source="s3://elsewhere")
        moved(own_server, "champion", 2)
        assert (await wait).version == 6
        await asyncio.to_thread(waiting.join, 120)
        assert not waiting.is_alive()


def test_a_watch_gives_up_when_its_patience_is_over(own_server: ServerProcess, client: penstock.Client) -> None:
    watch = client.registry.watch("iris", patience=0.3)
    own_server.stop()
    with pytest.raises(errors.Unavailable):
        next(watch)
    with pytest.raises(errors.TimedOut):
        client.registry.wait_for("iris", alias="champion", timeout=0.3)
    with pytest.raises(errors.Unavailable):
        client.registry.watch("iris", patience=0.3)
