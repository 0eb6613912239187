"""Programs: requests of one area in a row, after what they need."""

from __future__ import annotations

from hypothesis import strategies as st

from differential.acts import EXPERIMENTS, LOGGED, REGISTRY, RUNS, Act, Own, Ref
from differential.files import FILES
from differential.inputs import INPUTS
from differential.traces import TRACES

AREAS = {
    "experiments": EXPERIMENTS,
    "runs": RUNS,
    "datasets": INPUTS,
    "files": FILES,
    "registry": REGISTRY,
    "logged models": [*LOGGED, RUNS[0]],
    "traces": TRACES,
}

_EXPERIMENT = Act("POST", "experiments/create", {"name": Own("opening")}, "experiment")
_RUNS = [
    _EXPERIMENT,
    Act("POST", "runs/create", {"experiment_id": Ref("experiment", 0), "start_time": 1, "run_name": "r0"}, "run"),
    Act("POST", "runs/create", {"experiment_id": Ref("experiment", 0), "start_time": 2, "run_name": "r1"}, "run"),
]
# What the others need is there to begin with.
_OPENINGS = {
    "experiments": [_EXPERIMENT],
    "registry": [
        Act("POST", "registered-models/create", {"name": Own("m1")}, "model"),
        Act("POST", "model-versions/create", {"name": Ref("model", 0), "source": "s3://bucket/a"}, "version"),
    ],
}


def programs(area: str) -> st.SearchStrategy[list[Act]]:
    """Sequences of requests of one area."""
    opening = _OPENINGS.get(area, _RUNS)
    return st.lists(st.one_of(AREAS[area]), min_size=12, max_size=30).map(lambda acts: opening + acts)
