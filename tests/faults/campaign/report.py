"""The tables of docs/reliability.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from campaign.count import Tally
from campaign.journal import Latency
from campaign.stage import Outcome

_BEGIN, _END = "<!-- {} -->", "<!-- /{} -->"


def line(outcome: Outcome) -> str:
    """One campaign, in short."""
    tally = outcome.tally
    calls = outcome.latency
    return (
        f"{outcome.faults.total():,} faults, {tally.points:,} points, {tally.lost} lost, {tally.doubled} doubled, "
        f"{tally.in_flight} in flight, {tally.refused} refused, {outcome.seconds:.0f} s, longest recovery "
        f"{max(outcome.recoveries, default=0):.1f} s" + (f", longest call {calls.longest:.2f} ms" if calls else "")
    )


def tables(outcomes: dict[str, Outcome], seed: int, seconds: float) -> str:
    """As Markdown."""
    rows = [
        "| campaign | faults | points | lost | doubled | in flight | refused | recovery s | `start_run` ms | MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    faults: Counter[str] = Counter()
    for name, outcome in outcomes.items():
        faults += outcome.faults
        tally, starts = outcome.tally, sorted(outcome.starts)
        rows.append(
            f"| {name} | {outcome.faults.total():,} | {_counted(tally)} | {max(outcome.recoveries, default=0):.1f} "
            f"| {starts[len(starts) // 2]:.0f}, {starts[-1]:.0f} | {outcome.heaviest >> 20} |"
        )
    whole = Tally()
    for outcome in outcomes.values():
        whole.add(outcome.tally)
    rows.append(f"| **together** | {faults.total():,} | {_counted(whole)} | | | |")
    rows += ["", "| fault | survived |", "|---|---:|"]
    rows += [f"| {kind} | {number:,} |" for kind, number in faults.most_common()]
    rows += [
        "",
        "| `run.log` | calls | p50 ms | p99 | p99.99 | longest | over 1 ms |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, outcome in outcomes.items():
        for what, calls in ((name, outcome.latency), ("… `write` beside it", outcome.beside)):
            if calls is not None:
                rows.append(_latency(what, calls))
    return "\n".join([f"Seed {seed}, {seconds / 60:.0f} minutes.", "", *rows])


def _counted(tally: Tally) -> str:
    counts = (tally.points, tally.lost, tally.doubled, tally.in_flight, tally.refused)
    return " | ".join(f"{count:,}" for count in counts)


def _latency(what: str, calls: Latency) -> str:
    return (
        f"| {what} | {calls.calls:,} | {calls.p50:.4f} | {calls.p99:.3f} | {calls.p9999:.2f} "
        f"| {calls.longest:.2f} | {calls.over_1ms:,} |"
    )


def write(file: Path, text: str, mark: str = "measured") -> None:
    """Puts the tables between their marks."""
    begin, end = _BEGIN.format(mark), _END.format(mark)
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}")
