"""The campaigns: servers, stores, clients, networks and PostgreSQL fail under uploads, and everything arrives whole."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import grpc

from artifacts import wire
from artifacts.crew import MIB, Raw
from artifacts.depots import Bucket, Disk
from artifacts.ledger import Upload, made
from artifacts.player import Player
from artifacts.scene import Scene
from artifacts.sender import Sender
from artifacts.trainer import Trainer, sync
from artifacts.wire import Act, Answer, CutAnswer, CutRequest, Delay, Slow

_STRIKE_SECONDS = 60
_RATE = 32 * MIB  # bytes a second: a fault shall find it under way


_FOR_LONG = 1_000_000  # requests
_KINDS: list[tuple[str, Act]] = [
    ("500", Answer(500, "InternalError")),
    ("503", Answer(503, "ServiceUnavailable")),
    ("SlowDown", Answer(503, "SlowDown")),
    ("late", Delay(0.5)),
    ("slow", Slow(8 * MIB)),
    ("request cut in the middle", CutRequest(0.5)),
    ("done, and the answer lost", CutAnswer()),
]
_OPERATIONS = ("part", "complete", "put", "create", "get")


def store_fails(scene: Scene) -> None:
    """S3 answers 500 and 503, is slow, is cut off in mid-part, and after it has done what it is asked."""
    scene.replicas()
    scene.begin()
    pairs = [(operation, *kind) for operation in _OPERATIONS for kind in _KINDS]
    pairs += [("get", "answer cut in the middle", CutAnswer(0.5))] * 3
    scene.chance.shuffle(pairs)
    for number in scene.rounds():
        _fail(scene, *pairs[number % len(pairs)])


def _fail(scene: Scene, operation: str, kind: str, act: Act) -> None:
    """Until it has struck, and sometimes for longer than the server's patience."""
    depot, chance = scene.depot, scene.chance
    assert isinstance(depot, Bucket)
    times = chance.choice((1, 1, 1, 2, _FOR_LONG if scene.size.faults > 10 else 1))
    scene.strike(f"S3, {operation}: {kind}")
    before = len(depot.wire.struck)
    depot.wire.harm = wire.nth(operation, chance.choice((1, 2)), act, times)
    _wait(lambda: len(depot.wire.struck) > before, f"{operation} to strike")
    time.sleep(chance.uniform(2, 12) if times == _FOR_LONG else 0)
    depot.wire.harm = wire.none


def direct(scene: Scene) -> None:
    """Clients write to S3 themselves, to signed addresses: S3 fails them, and they are killed."""
    depot = scene.depot
    assert isinstance(depot, Bucket)
    scene.replicas(1, PENSTOCK_ARTIFACTS_MODE="direct")
    players = _players(scene, scene.address)
    scene.begin(*players)
    kinds = scene.chance.sample(_KINDS, len(_KINDS))
    for number in scene.rounds(parts=False):
        if number % 3:
            _fail(scene, scene.chance.choice(("part", "part", "complete", "create")), *kinds[number % len(kinds)])
        else:
            asked = depot.wire.asked["part"]
            _wait(lambda asked=asked: depot.wire.asked["part"] > asked, "a part on its way")  # type: ignore[misc]
            scene.strike("SIGKILL of a client that writes to S3")
            max(players, key=lambda each: each.busy).kill()


def store_restarted(scene: Scene) -> None:
    """The store is killed and started again: it forgets all uploads in parts, so that clients begin anew."""
    depot = scene.depot
    assert isinstance(depot, Bucket)
    scene.replicas()
    scene.begin()
    for _ in scene.rounds():
        scene.strike("S3 killed, its uploads in parts forgotten")
        depot.restart(away=scene.chance.choice((0, 0.5)))


def server_killed(scene: Scene) -> None:
    """SIGKILL of the server under uploads, again and again."""
    (server,) = scene.replicas()
    scene.begin()
    for _ in scene.rounds():
        scene.strike("SIGKILL of the server")
        server.kill()
        server.start().wait_ready()


def server_still(scene: Scene) -> None:
    """SIGSTOP of one of two replicas; its clients go on at the other; then SIGCONT: it must not spoil anything."""
    servers = scene.replicas(2)
    standing: list[str] = []

    def address() -> str:
        return scene.chance.choice([each.grpc_address for each in servers if each.grpc_address not in standing])

    members = [Raw(address, scene.run_id) for _ in range(scene.size.members)]
    scene.begin(*members)
    for _ in scene.rounds():
        server = scene.chance.choice(servers)
        scene.strike("SIGSTOP of a replica, its uploads go on at the other")
        standing.append(server.grpc_address)
        server.signal(signal.SIGSTOP)
        for member in members:
            member.break_off()  # a client whose patience is at its end
        time.sleep(scene.chance.uniform(0.2, 2.0))
        server.signal(signal.SIGCONT)
        standing.clear()


def replicas_hopped(scene: Scene) -> None:
    """Uploads are cut off at one replica and go on at the other."""
    proxies = [scene.proxy(server) for server in scene.replicas(2)]
    scene.begin(*(Raw(lambda: scene.chance.choice(proxies).address, scene.run_id) for _ in range(scene.size.members)))
    for _ in scene.rounds():
        scene.strike("connections cut, uploads go on at any replica")
        for proxy in proxies:
            proxy.cut(reset=scene.chance.random() < 0.5)


def client_killed(scene: Scene) -> None:
    """SIGKILL of a client in mid-upload; the next one that is told to upload this file goes on with it."""
    proxy = scene.proxy(*scene.replicas())
    proxy.slow(_RATE)
    players = _players(scene, lambda: proxy.address)
    scene.begin(*players)
    for _ in scene.rounds():
        scene.strike("SIGKILL of a client")
        max(players, key=lambda each: each.busy).kill()


def _players(scene: Scene, address: Callable[[], str]) -> list[Player]:
    return [
        Player(scene.directory / f"player-{scene.run_id}-{each}", address, scene.run_id)
        for each in range(scene.size.members)
    ]


def logged(scene: Scene) -> None:
    """SIGKILL of processes that log files to their run: each call that returned is kept, and sent by another."""
    proxy = scene.proxy(*scene.replicas())
    proxy.slow(_RATE)
    spool = scene.directory / f"spool-{scene.run_id}"
    last: dict[str, Upload] = {}
    replaced: list[Upload] = []
    with ExitStack() as closing:
        for number in range(scene.size.faults + 1):
            life = Trainer(proxy.address, scene.run_id, scene.directory / f"life-{scene.run_id}-{number}", spool)
            closing.callback(life.kill)
            for _ in range(scene.chance.randint(2, 5)):
                # A name has one directory in each life: of two lives, nobody says whose file is sent last.
                path = f"{number}/{scene.chance.choice(('a.bin', 'b.bin'))}"
                data = made(scene.chance.getrandbits(64), scene.chance.randrange(scene.size.largest))
                if path in last:
                    replaced.append(last[path])
                last[path] = scene.ledger.enter(path, data)
                life.log(path, data)
                time.sleep(scene.chance.uniform(0, 0.3))
            if number < scene.size.faults:
                scene.strike("SIGKILL of a process that has logged files")
                life.kill()
            else:
                life.finish()
        sync(spool)
    for upload in replaced:
        upload.done = 0  # it is past when the last is there
    for upload in last.values():
        upload.done = time.monotonic()


def database_dies(scene: Scene) -> None:
    """Immediate stop or SIGKILL of PostgreSQL under uploads."""
    ground = scene.ground
    assert ground is not None
    scene.replicas()
    scene.begin()
    for _ in scene.rounds():
        kill = scene.chance.random() < 0.3
        scene.strike("SIGKILL of PostgreSQL" if kill else "immediate stop of PostgreSQL")
        ground.die(kill=kill)
        time.sleep(scene.chance.choice((0, 0, 0.5)))
        ground.revive()


def disk_full(scene: Scene) -> None:
    """The disk of a local store is full for a while: clients are told so, and go on when there is room."""
    disk = scene.depot
    assert isinstance(disk, Disk)
    scene.replicas()
    # Slowly: what is replaced stays for an hour, and all of it has to find room.
    scene.begin(*(Raw(scene.address, scene.run_id, _RATE / 4) for _ in range(scene.size.members)))
    for _ in scene.rounds():
        scene.strike("disk of the store full")
        disk.fill()
        time.sleep(scene.chance.uniform(0.2, 1.0))
        disk.clear()


def digests_wrong(scene: Scene) -> None:
    """Among good uploads there are some whose bytes are not those of their digest: refused, and nothing is kept."""
    scene.replicas()
    scene.begin()
    for number in scene.rounds(pause=0.1):
        size = scene.chance.choice((0, 1000, 9 * MIB, 17 * MIB))
        data = made(scene.chance.getrandbits(64), size)
        sender = Sender(scene.address, scene.run_id, scene.chance.choice(("model.pt", "never.bin")), data)
        how = ("header", "trailer", "a file that changes while it is sent")[number % 3]
        scene.strike(f"wrong digest: {how}")
        wrong = bytes(32)
        match how:
            case "header":
                said = refused(sender, header=wrong)
            case "trailer":
                said = refused(sender, trailer=wrong)
            case _:
                sender.data = data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"
                said = refused(sender, trailer=sender.digest)
        assert said.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{said.code()}: {said.details()}"


def races(scene: Scene) -> None:
    """Clients upload to one path at once, contents of one size or of several: one of them is there, whole."""
    servers = scene.replicas(2)
    alike = scene.chance.randrange(9 * MIB, scene.size.largest)
    for number in range(scene.size.faults):
        path = f"{number % 3}/raced.bin"
        datas = [
            made(scene.chance.getrandbits(64), alike if number % 2 else scene.chance.randrange(scene.size.largest))
            for _ in range(scene.size.members)
        ]
        scene.strike("clients at once, contents of one size" if number % 2 else "clients at once")
        senders = [
            Sender(lambda address=servers[each % 2].grpc_address: address, scene.run_id, path, data)  # type: ignore[misc]
            for each, data in enumerate(datas)
        ]
        together(scene, senders)


def refused(sender: Sender, **digests: bytes) -> grpc.RpcError:
    """With what error it was not taken."""
    try:
        sender.send(**digests)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"{len(sender.data)} bytes were taken with a digest that is not theirs: {list(digests)}")


def together(scene: Scene, senders: list[Sender]) -> None:
    """All deliver at the same time. Raises what went wrong with one."""
    start, failed = threading.Barrier(len(senders)), []

    def work(sender: Sender) -> None:
        start.wait()
        try:
            with scene.ledger.upload(sender.path, sender.data):
                sender.deliver()
        except grpc.RpcError as error:
            failed.append(f"{error.code()}: {error.details()}, after {sender.errors}")

    threads = [threading.Thread(target=work, args=(sender,), daemon=True) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sender in senders:
        scene.count(sender)
    assert not failed, f"clients that upload at once: {failed}"


def _wait(there: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _STRIKE_SECONDS
    while not there():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.005)
