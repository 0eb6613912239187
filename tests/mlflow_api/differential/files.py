"""Random requests about the files of runs."""

from __future__ import annotations

from hypothesis import strategies as st

from differential.acts import Act, File, act, one_of, run

_PROXY = "/api/2.0/mlflow-artifacts/artifacts"
paths = one_of(
    "a.txt", "a.txt", "b.txt", "d/a.txt", "d/e/f.txt", "d", "d/e", "", "no", "ü x.txt", "100%25.txt", "d/../a.txt", ".."
)
contents = one_of("one", "two", "", "Größe" * 1000)
file = st.builds(File, st.integers(0, 3), paths)
FILES = [
    st.builds(
        Act, st.just("PUT"), st.just(f"{_PROXY}/{{file}}"), st.fixed_dictionaries({"file": file, "body": contents})
    ),
    st.builds(
        Act, st.just("PUT"), st.just(f"{_PROXY}/{{file}}"), st.fixed_dictionaries({"file": file, "body": contents})
    ),
    st.builds(Act, st.just("GET"), st.just(f"{_PROXY}/{{file}}"), st.fixed_dictionaries({"file": file})),
    st.builds(Act, st.just("DELETE"), st.just(f"{_PROXY}/{{file}}"), st.fixed_dictionaries({"file": file})),
    act("GET", _PROXY, path=file),
    act("GET", "artifacts/list", run_id=run, path=paths),
    act("GET", "/get-artifact", run_id=run, path=paths),
]
