"""MLflow's REST API: ours beside MLflow's own server and beside FastTrackML, asked the same by the same program.

    python -m benchmarks.mlflow [--runs 10000] [--seconds 8] [--servers penstock,mlflow,fasttrackml]

Each server has a PostgreSQL of its own of the same make, and the machine to itself. Requests are plain HTTP with bodies
encoded before the clock starts; what the answers say is not parsed while it runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import peers
from benchmarks.peers import Peer, memory_mb
from benchmarks.serving import clock, median, server

CLIENTS = 4
BATCH = 1_000
POINTS = 100_000
PAGE = 25_000  # what MLflow's client asks for
START_MS = 1_700_000_000_000


class Connection:
    """One connection that is kept: a request and its answer after another."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must be 200."""
        self._socket.sendall(request)
        status = self._file.readline()
        length, chunked = 0, False
        while (line := self._file.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            chunked |= line.startswith(b"transfer-encoding:") and b"chunked" in line
        body = b"".join(self._chunks()) if chunked else self._file.read(length)
        if b" 200 " not in status:
            raise RuntimeError(f"{status!r} {body[:500]!r}")
        return body

    def json(self, method: str, path: str, fields: Any = None) -> Any:
        """The answer's JSON."""
        return json.loads(self.ask(request(method, path, fields)))

    def close(self) -> None:
        """Closes it."""
        self._file.close()
        self._socket.close()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()


def request(method: str, path: str, fields: Any = None) -> bytes:
    """A request as it goes over the network."""
    body = b"" if fields is None else json.dumps(fields).encode()
    head = f"{method} /api/2.0/mlflow/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def new_run(connection: Connection, experiment_id: str = "0", **fields: Any) -> str:
    """Makes a run; its id."""
    made = connection.json(
        "POST", "runs/create", {"experiment_id": experiment_id, "start_time": START_MS, "user_id": "bench", **fields}
    )
    return str(made["run"]["info"]["run_id"])


def batch(run_id: str, number: int, keys: int) -> bytes:
    """The batch of 1,000 points that follows `number` others: of so many metrics, step after step."""
    metrics = []
    for position in range(BATCH):
        step = (number * BATCH + position) // keys
        value = (step * 0.6180339887498949 + position * 0.1) % 1.0
        metrics.append(
            {"key": f"metric_{position % keys}", "value": value, "timestamp": START_MS + 10 * step, "step": step}
        )
    return request("POST", "runs/log-batch", {"run_id": run_id, "metrics": metrics})


def send(address: str, keys: int, seconds: float, most: int, ready: Any, go: Any, results: Any) -> None:
    """One client: logs batches to a run of its own for so long, or until they are used up. Tells (batches, seconds)."""
    connection = Connection(address)
    run_id = new_run(connection)
    bodies = [batch(run_id, number, keys) for number in range(most)]
    ready.release()
    go.wait()
    started, done = clock(), 0
    while done < most and clock() - started < seconds:
        connection.ask(bodies[done])
        done += 1
    results.put((done, clock() - started))
    connection.close()


def batches(address: str, keys: int, seconds: float) -> float:
    """Points a second of 4 clients, each a process."""
    context = multiprocessing.get_context("spawn")
    ready, go, results = context.Semaphore(0), context.Event(), context.Queue()
    most = round(100 * seconds)
    arguments = (address, keys, seconds, most, ready, go, results)
    clients = [context.Process(target=send, args=arguments) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for _ in clients:
        ready.acquire()
    go.set()
    rate = sum(BATCH * done / took for done, took in (results.get() for _ in clients))
    for client in clients:
        client.join()
    return rate


def single(connection: Connection, calls: int) -> float:
    """The milliseconds of one log-metric, at the median."""
    run_id = new_run(connection)
    fields = {"run_id": run_id, "run_uuid": run_id, "key": "loss"}
    times = []
    for step in range(calls):
        body = request(
            "POST", "runs/log-metric", {**fields, "value": 1 / (step + 1), "timestamp": START_MS, "step": step}
        )
        started = clock()
        connection.ask(body)
        times.append(1000 * (clock() - started))
    return median(times)


def repeated(ask: Callable[[], Any], repeat: int) -> float:
    """The milliseconds that it takes, at the median, after once to warm up."""
    ask()
    times = []
    for _ in range(repeat):
        started = clock()
        ask()
        times.append(1000 * (clock() - started))
    return median(times)


def history(connection: Connection, repeat: int) -> float:
    """The milliseconds of all points of one metric, page after page as MLflow's client asks for them."""
    run_id = new_run(connection)
    for number in range(POINTS // BATCH):
        connection.ask(batch(run_id, number, 1))
    path = f"metrics/get-history?run_id={run_id}&metric_key=metric_0&max_results={PAGE}"

    def ask() -> list[bytes]:
        token, pages = "", []
        while token or not pages:
            answer = connection.ask(request("GET", path + (f"&page_token={quote(token)}" if token else "")))
            pages.append(answer)
            # It is the last field of the answer, or the first.
            found = answer.partition(b'"next_page_token"')[2].split(b'"', 2)
            token = found[1].decode() if len(found) > 1 else ""
        return pages

    assert sum(len(json.loads(page)["metrics"]) for page in ask()) == POINTS
    return repeated(ask, repeat)


def fill_runs(address: str, count: int) -> str:
    """Makes an experiment with so many runs of 5 metrics, 5 params and a tag; its id."""
    connection = Connection(address)
    experiment_id = str(connection.json("POST", "experiments/create", {"name": "search"})["experiment_id"])
    connection.close()

    def fill(part: range) -> None:
        own = Connection(address)
        for number in part:
            run_id = new_run(own, experiment_id, tags=[{"key": "team", "value": f"team-{number % 20}"}])
            metrics = [
                {"key": f"metric_{i}", "value": (number * 0.618 + i * 0.1) % 1.0, "timestamp": START_MS, "step": 1}
                for i in range(5)
            ]
            params = [{"key": f"param_{i}", "value": str(number % (10 + i))} for i in range(5)]
            own.json("POST", "runs/log-batch", {"run_id": run_id, "metrics": metrics, "params": params})
        own.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(fill, (range(first, count, CLIENTS) for first in range(CLIENTS))))
    return experiment_id


def searches(connection: Connection, experiment_id: str, count: int, repeat: int) -> tuple[float, float]:
    """The milliseconds of the first hundred of a filtered and sorted search, and of all runs."""
    some = {
        "experiment_ids": [experiment_id],
        "filter": "metrics.metric_0 > 0.5 AND params.param_0 = '3'",
        "order_by": ["metrics.metric_1 DESC"],
        "max_results": 100,
    }
    everything = {"experiment_ids": [experiment_id], "max_results": count}
    asked = [request("POST", "runs/search", fields) for fields in (some, everything)]
    found = [len(json.loads(connection.ask(each)).get("runs", [])) for each in asked]
    assert found == [min(100, found[0]), count], found
    first, second = (repeated(lambda each=each: connection.ask(each), repeat) for each in asked)  # type: ignore[misc]
    return first, second


def listed(peer: Peer, run_id: str, count: int, repeat: int) -> float:
    """The milliseconds of a list of so many artifacts of one run, by way of the tracking server."""
    connection = Connection(peer.address)
    run = connection.json("GET", f"runs/get?run_id={run_id}")["run"]["info"]
    connection.close()
    if peer.name == "Penstock":
        put_artifacts(peer.address, run["artifact_uri"].removeprefix("mlflow-artifacts:/"), count)
    else:
        uri = run["artifact_uri"].removeprefix("file://")
        place = peer.artifacts / uri.removeprefix("mlflow-artifacts:/").lstrip("/") if ":" in uri else Path(uri)
        (place / "files").mkdir(parents=True)
        for number in range(count):
            (place / "files" / f"{number:05}.txt").write_bytes(b"content\n")
    connection = Connection(peer.address)
    path = f"artifacts/list?run_id={run_id}&path=files"

    def ask() -> int:
        token, found = "", 0
        while True:
            answer = json.loads(connection.ask(request("GET", path + (f"&page_token={quote(token)}" if token else ""))))
            found += len(answer.get("files", []))
            token = answer.get("next_page_token", "")
            if not token:
                return found

    assert ask() == count
    took = repeated(ask, repeat)
    connection.close()
    return took


def put_artifacts(address: str, place: str, count: int) -> None:
    """Uploads small files through the server."""

    def put(part: range) -> None:
        own = Connection(address)
        for number in part:
            path = f"/api/2.0/mlflow-artifacts/artifacts/{place.lstrip('/')}/files/{number:05}.txt"
            own.ask(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\ncontent\n".encode())
        own.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(put, (range(first, count, CLIENTS) for first in range(CLIENTS))))


@contextmanager
def penstock() -> Iterator[Peer]:
    """Our server."""
    with server() as own:
        yield Peer("Penstock", own.http_address, own.pid, Path())


SERVERS = {"penstock": penstock, "mlflow": peers.mlflow, "fasttrackml": peers.fasttrackml}

# What is measured, in which unit; and whether more is better.
ROWS = [
    ("log-batch of 1,000 points, 10 metrics, 4 clients", "points/s", True),
    ("log-batch of 1,000 points, 1,000 metrics, 4 clients", "points/s", True),
    ("log-metric, p50", "ms", False),
    ("get-history of 100,000 points", "ms", False),
    ("search of {runs:,} runs: filter, order, first 100", "ms", False),
    ("search of {runs:,} runs: all of them", "ms", False),
    ("list of {files:,} artifacts", "ms", False),
    ("memory afterwards, without PostgreSQL", "MB", False),
]


def measure(peer: Peer, arguments: argparse.Namespace) -> list[float]:
    """The numbers of ROWS."""
    repeat, runs, files = arguments.repeat, arguments.runs, arguments.files

    def once(part: Callable[..., Any], *args: Any) -> Any:
        connection = Connection(peer.address)  # one that was idle for long may have been closed
        try:
            return part(connection, *args)
        finally:
            connection.close()

    found = [batches(peer.address, keys, arguments.seconds) for keys in (10, BATCH)]
    found.append(once(single, 40 * repeat))
    found.append(once(history, repeat))
    experiment_id = fill_runs(peer.address, runs)
    time.sleep(arguments.rest)
    found.extend(once(searches, experiment_id, runs, repeat))
    found.append(listed(peer, once(new_run), files, repeat))
    found.append(memory_mb(peer.pid))
    return found


def shown(number: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"


def main() -> None:
    """Measures one server after another, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000, help="that are searched")
    parser.add_argument("--files", type=int, default=10_000, help="that are listed")
    parser.add_argument("--seconds", type=float, default=8.0, help="of batches, each kind")
    parser.add_argument("--rest", type=float, default=5.0, help="seconds of rest after runs were made")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--servers", default=",".join(SERVERS), help="which ones, ours first")
    arguments = parser.parse_args()
    measured: dict[str, list[float]] = {}
    for name in arguments.servers.split(","):
        with SERVERS[name]() as peer:
            measured[peer.name] = measure(peer, arguments)
    (ours, numbers), *others = measured.items()
    print(f"| what | {ours} | beside it |\n| --- | --- | --- |")
    for position, (what, unit, more) in enumerate(ROWS):
        beside = []
        for peer_name, theirs in others:
            ratio = numbers[position] / theirs[position]
            beside.append(f"{peer_name} {shown(theirs[position], unit)} ({ratio if more else 1 / ratio:.1f} ×)")
        name = what.format(runs=arguments.runs, files=arguments.files)
        print(f"| {name} | {shown(numbers[position], unit)} | {', '.join(beside)} |", flush=True)


if __name__ == "__main__":
    main()
