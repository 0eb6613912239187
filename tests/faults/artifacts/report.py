"""The table of artifacts in docs/reliability.md."""

from __future__ import annotations

from collections import Counter

from artifacts.scene import Outcome

_COUNTS = ("uploads", "bytes", "sent", "tries", "resumed", "looks", "downloads", "swept", "partial", "orphans")


def line(outcome: Outcome) -> str:
    """One campaign, in short."""
    return (
        f"{outcome.faults.total():,} faults, {outcome.uploads:,} uploads of {outcome.bytes >> 20:,} MiB in "
        f"{outcome.tries:,} tries, {outcome.resumed:,} of them resumed; {outcome.downloads:,} downloads; "
        f"{outcome.swept} swept, {outcome.partial} partial, {outcome.orphans} orphans, {outcome.seconds:.0f} s"
    )


def tables(outcomes: dict[str, Outcome], seed: int, seconds: float) -> str:
    """As Markdown."""
    rows = [
        "| campaign | faults | uploads | MiB | MiB sent | tries | resumed | looks | downloads | swept | partial seen "
        "| orphans |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows += [_row(name, [outcome]) for name, outcome in outcomes.items()]
    rows.append(_row("**together**", list(outcomes.values())))
    faults: Counter[str] = sum((outcome.faults for outcome in outcomes.values()), Counter())
    rows += ["", "| fault | survived |", "|---|---:|"]
    rows += [f"| {kind} | {number:,} |" for kind, number in faults.most_common()]
    return "\n".join([f"Seed {seed}, {seconds / 60:.0f} minutes.", "", *rows])


def _row(name: str, outcomes: list[Outcome]) -> str:
    counts = [sum(outcome.faults.total() for outcome in outcomes)]
    for field in _COUNTS:
        total = sum(getattr(outcome, field) for outcome in outcomes)
        counts.append(total >> 20 if field in ("bytes", "sent") else total)
    return f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |"
