"""Random requests about the files of runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from differential.acts import Act, File, act, one_of, run

_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
paths = one_of(
    *("a.txt", "a.txt", "b.txt", "d/a.txt", "d/e/f.txt", "d", "d/e", "no", "ü x.txt", "100%.txt"),
    *("d/../a.txt", ".."),
)
contents = one_of("one", "two", "", "Größe" * 1000)
file = st.builds(File, st.integers(0, 3), paths)
directory = st.builds(File, st.integers(0, 3), one_of("", "", "d", "d/e", "a.txt", "no"))


def _by_path(method: str, each: Mapping[str, Any]) -> st.SearchStrategy[Act]:
    return st.builds(Act, st.just(method), st.just(f"{_PROXY}/{{file}}"), st.fixed_dictionaries(dict(each)))


FILES = [
    _by_path("PUT", {"file": file, "body": contents}),
    _by_path("PUT", {"file": file, "body": contents}),
    _by_path("GET", {"file": file}),
    _by_path("DELETE", {"file": file}),
    act("GET", _PROXY, path=directory),
    act("GET", "artifacts/list", run_id=run, path=paths),
    act("GET", "/get-artifact", run_id=run, path=paths),
]
