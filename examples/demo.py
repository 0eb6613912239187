"""`make demo`: the example against a server of its own, then what that has of it. Leaves no process behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import joblib
from sklearn.datasets import load_digits

import digits
import penstock
from penstock.cli.plot import plot
from penstock_server import data_dir

DATA = Path(".penstock-demo")
START_SECONDS = 120
STOP_SECONDS = 60


def main() -> None:
    """Trains, and shows what was recorded."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("Starting a server with a PostgreSQL of its own …", flush=True)
    with server() as url:
        os.environ["PENSTOCK_URL"] = url  # as a user would export them
        os.environ["PENSTOCK_SPOOL_DIR"] = str((DATA / "spool").resolve())
        print("Training on scikit-learn's digits; every batch is recorded …\n", flush=True)
        began = time.monotonic()
        digits.main()
        show(penstock.Client(), time.monotonic() - began)
    print(f"""
To look further:
  make run ARGS="--data-dir {DATA}"      starts the server on it again; then, in another terminal:
  .venv/bin/penstock runs list --experiment digits
  .venv/bin/penstock models show digits
  make bench                                     what the server can take when no training holds it up""")


def show(client: penstock.Client, seconds: float) -> None:
    """What the server has: the runs, the best of them, its loss and files, and how much was committed how quickly."""
    runs = client.search_runs(experiments=["digits"], order_by=["metrics.`accuracy/test` DESC"])
    print("run                               name    hidden  lr     loss    accuracy")
    for run in runs:
        loss, accuracy = run.metrics["loss"].last_value, run.metrics["accuracy/test"].last_value
        print(f"{run.id}  {run.name:<7} {run.params['hidden']:>6}  {run.params['lr']:<5}  {loss:.4f}  {accuracy:.3f}")

    best = runs[0]
    print(
        f"\nThe best on digits it had not seen is {best.name} with lr {best.params['lr']}. Its loss, batch by batch:\n"
    )
    print(plot(client.metric_history(best.id, "loss")))

    print("\nIts files:\n")
    for file in client.list_artifacts(best.id, recursive=True):
        print(f"{file.size:>9,} bytes  {file.path}")
    model = joblib.load(client.download_artifacts(best.id, "model/mlp.joblib", DATA / "mlp.joblib"))
    first = model.predict(load_digits().data[:1] / 16)[0]
    print(f"\nThe model, downloaded again, says that the first digit is a {first}.")

    register(client, best)

    points = sum(metric.count for run in runs for metric in run.metrics.values())
    print(f"\n{points:,} points were committed in the {seconds:.1f} s that training took.")


def register(client: penstock.Client, run: penstock.Run) -> None:
    """Registers the model of a run, and makes it the champion, if it is good enough."""
    version = client.registry.create_version("digits", run.id, "model", create_model=True)
    gates = ["metrics.`accuracy/test` >= 0.9", "metrics.`accuracy/test` >= champion.metrics.`accuracy/test`"]
    result = client.registry.promote("digits", version.version, alias="champion", gates=gates)
    print(f"\nIt is registered as version {version.version} of the model digits. To be its champion, it must pass:\n")
    for gate in result.gates:
        values = ", ".join(value.value or "none" for value in gate.values)
        print(f"{'passed' if gate.passed else 'failed':<7} {gate.gate}  ({gate.reason or values})")
    if result:
        champion = client.registry.resolve("models:/digits@champion")
        print(f"\nmodels:/digits@champion is version {champion.version} now, from {champion.source}")


@contextlib.contextmanager
def server() -> Iterator[str]:
    """A server on free ports with nothing in it. Gives its address, and stops it at the end."""
    with data_dir.hold(DATA, 0):  # nobody else is using it
        shutil.rmtree(DATA)
    DATA.mkdir()
    log = DATA / "server.log"
    command = [sys.executable, "-m", "penstock_server", "serve", "--data-dir", DATA, "--log-format", "json"]
    command += ["--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    # In a session of its own: Ctrl-C is for us, and we stop it.
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    try:
        yield address(process, log)
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address of the server's gRPC services, as soon as it serves."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # a line that is still being written
                event = json.loads(line)
                if event["event"] == "serving":
                    return str(event["grpc_address"])
        time.sleep(0.05)
    sys.exit(f"The server did not start. Its log:\n{log.read_text()}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
