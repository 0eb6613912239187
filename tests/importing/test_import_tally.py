"""What an import says at its end."""

from __future__ import annotations

from penstock_server.importing.tally import Tally


def test_what_is_here_beyond_the_source_makes_up_for_nothing() -> None:
    tally = Tally()
    tally.compare("runs a to b", {"runs": 2, "points": 10}, {"runs": 2, "points": 9})
    tally.compare("runs c to d", {"runs": 2, "points": 10}, {"runs": 2, "points": 11})
    assert not tally.whole
    assert tally.lines()[1:] == [
        "runs                           4              4          0",
        "points                        20             19          1",
        "missing: runs a to b: 1 of 10 points are not here",
    ]


def test_notes_do_not_make_it_incomplete() -> None:
    tally = Tally()
    tally.compare("runs", {"runs": 1}, {"runs": 1})
    tally.note("run x is y here")
    assert tally.whole
    assert tally.lines()[-1] == "note: run x is y here"
