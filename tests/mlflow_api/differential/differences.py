"""The differences that are meant. docs/mlflow.md tells users of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asking import Told

from differential.acts import Act

# Of the act, the stock server's answer, ours.
Holds = Callable[[Act, Told, Told], bool]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that we do otherwise. `why` is the sentence in docs/mlflow.md."""

    why: str
    holds: Holds


def _user_error(told: Told) -> bool:
    return 400 <= told.status < 500


CHOSEN = [
    Difference(
        "What a caller did wrong is told with a status of 400 to 499, where MLflow has some as 500.",
        lambda _, stock, ours: stock.status == 500 and _user_error(ours),
    ),
]


def chosen(act: Act, stock: Told, ours: Told) -> Difference | None:
    """The difference that explains these two answers, None when none does."""
    return next((each for each in CHOSEN if each.holds(act, stock, ours)), None)
