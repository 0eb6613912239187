"""One flush: the transaction in which batches become durable, points and marks and summaries together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.ingest import parcels as form
from penstock_server.ingest.parcels import Clash, Parcel, RunPart
from penstock_server.model.errors import NotActive, ParamChanged
from penstock_server.model.runs import format_run_id
from penstock_server.model.streams import WriterId
from penstock_server.postgres import changes, metrics, runs, segments, writers
from penstock_server.postgres.database import Connection, Transaction, limit_locks
from penstock_server.postgres.writers import Advance


class OutcomeUnknown(Exception):  # it is not known to be an error
    """COMMIT was sent and its answer was lost: only reading the marks again tells."""


class Refused(Exception):  # carries the error that the caller is told
    """A unary batch cannot be recorded; nothing of it is."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a flush."""

    lost: frozenset[Parcel]  # those whose writer's mark was not where they begin: nothing of them went in
    clashes: Sequence[Clash]  # updates of committed parcels that clash with what is recorded


async def commit(conn: Connection, taken: Sequence[Parcel], lock_seconds: float | None = None) -> Outcome:
    """Commits the parcels. All of them go in but those of writers that lost a race.

    With `lock_seconds` it waits no longer than that for a row that another holds, else as long as the connection says.

    A unary parcel with params, tags or a request id is given alone. Raises Refused when a unary one cannot go in;
    OutcomeUnknown when the connection broke during COMMIT; and whatever PostgreSQL says before that.
    """
    transaction = conn.transaction()
    await transaction.start()
    try:
        if lock_seconds is not None:
            await limit_locks(conn, lock_seconds)
        outcome = await _write(conn, taken)
    except BaseException:
        await _abandon(conn, transaction)
        raise
    try:
        await transaction.commit()
    except Exception as error:
        raise OutcomeUnknown from error
    return outcome


async def _abandon(conn: Connection, transaction: Transaction) -> None:
    """Takes a transaction back; a connection that cannot even do that is of no use any more."""
    try:
        if not conn.is_closed():
            await transaction.rollback()
    except Exception:  # noqa: BLE001  # what is wrong with it has been raised already
        conn.terminate()


async def _write(conn: Connection, taken: Sequence[Parcel]) -> Outcome:
    lost = await _advance(conn, taken)
    if lost:
        taken = [parcel for parcel in taken if parcel not in lost]
    if not await _admit(conn, [parcel for parcel in taken if parcel.unary]):
        return Outcome(lost, ())
    # In the order of run ids, as everybody who locks several runs does.
    parts = sorted(form.by_run(taken), key=lambda part: part.run.run_id)
    rows = [row for part in parts for row in form.segments(part)]
    if rows:
        await segments.append(conn, rows)
    growth = form.growth(parts)
    if growth is not None:
        await metrics.grow(conn, growth)
    clashes = [clash for part in parts if part.updates or part.lost for clash in await _update(conn, part)]
    if clashes and clashes[0].parcel.unary:
        raise Refused(clashes[0].error)
    return Outcome(lost, clashes)


async def _advance(conn: Connection, taken: Sequence[Parcel]) -> frozenset[Parcel]:
    """Moves the marks, and returns the parcels that are lost.

    A writer's mark moves once, from its stream's first parcel here to the last, each beginning where the one before
    ends. Two streams of one writer may both have parcels here, when the writer came back faster than its old stream was
    settled: they hold the same records, so only one of them can go in.
    """
    chains: dict[WriterId, list[Parcel]] = {}
    lost: set[Parcel] = set()
    for parcel in taken:
        if parcel.mark is None:
            continue
        chain = chains.setdefault(parcel.mark.writer_id, [])
        if chain and not _follows(parcel, chain[-1]):
            lost.add(parcel)
        else:
            chain.append(parcel)
    moved = await writers.advance(conn, [_move(chain) for chain in chains.values()]) if chains else set()
    for writer_id, chain in chains.items():
        if writer_id not in moved:
            lost.update(chain)
    return frozenset(lost)


def _follows(parcel: Parcel, last: Parcel) -> bool:
    assert parcel.mark is not None
    assert last.mark is not None
    return parcel.origin is last.origin and parcel.mark.lo == last.mark.hi


def _move(chain: Sequence[Parcel]) -> Advance:
    first, last = chain[0].mark, chain[-1].mark
    assert first is not None
    assert last is not None
    return Advance(first.writer_id, first.lo, last.hi, first.epoch)


async def _admit(conn: Connection, unary: Sequence[Parcel]) -> bool:
    """Whether unary batches are to be recorded: False when a lone one's request id says that it is. Raises Refused."""
    if not unary:
        return True
    active = await runs.active(conn, [parcel.run.run_id for parcel in unary])
    for parcel in unary:
        if parcel.run.run_id not in active:
            raise Refused(NotActive("run", format_run_id(parcel.run.run_id)))
    only = unary[0]
    if only.request is None:
        return True
    return await writers.once(conn, only.request, only.run.run_id, only.run.workspace_id, only.principal)


async def _update(conn: Connection, part: RunPart) -> list[Clash]:
    """Records a run's params and tags, of params the first value stays, of tags the last; and counts what it lost."""
    params: dict[str, str] = {}
    tags: dict[str, str] = {}
    for _, _, update in part.updates:
        if update.is_param:
            params.setdefault(update.key, update.value)
        else:
            tags[update.key] = update.value
    recorded = await runs.add_params(conn, part.run, params) if params else {}
    if tags:
        await runs.put_tags(conn, part.run, tags)
    if part.lost:
        await writers.count_lost(conn, part.run.run_id, part.lost)
    await changes.notify_run(conn, part.run)
    return [
        Clash(parcel, position, ParamChanged(update.key, recorded[update.key], update.value))
        for parcel, position, update in part.updates
        if update.is_param and recorded[update.key] != update.value
    ]
