"""Random requests, valid and not. What they name is named by its number: each server has ids of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, slots=True)
class Ref:
    """The id of the `number`-th thing of a kind that was made, counted around; of nothing, if none was."""

    kind: str  # experiment, run, model (registered), version, logged
    number: int


@dataclass(frozen=True, slots=True)
class Own:
    """A name that no other program uses; as it is, where it is no text to begin with."""

    name: Any


@dataclass(frozen=True, slots=True)
class Within:
    """A filter, of what this program has made."""

    text: str | None


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file of the `run`-th run, as the proxy of artifacts knows it."""

    run: int
    path: str


@dataclass(frozen=True, slots=True)
class Trace:
    """The id of a trace, which clients make themselves: the same on both sides."""

    number: int


@dataclass(frozen=True, slots=True)
class Now:
    """A time, in ms, later than that of any request before."""


@dataclass(frozen=True, slots=True)
class Act:
    """One request. `makes` is the kind of what it makes, if it succeeds."""

    method: str
    path: str
    fields: Mapping[str, Any]
    makes: str = ""


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def refs(kind: str) -> st.SearchStrategy[Any]:
    """Mostly one that was made, at times one that cannot be."""
    made = st.integers(0, 3).map(lambda number: Ref(kind, number))
    return st.integers(0, 19).flatmap(lambda luck: made if luck else NOBODY[kind])


NOBODY: dict[str, st.SearchStrategy[Any]] = {
    "experiment": one_of("999999", "abc", "-1", "", 999_997, "1.5"),
    "run": one_of("f" * 32, "no such run", "", "../x", 5, "f" * 300),
    "model": one_of("no such model", "", "a/b", " ", 5),
    "version": one_of("99", "0", "-1", "abc", "", 1.5),
    "logged": one_of("m-" + "f" * 32, "m-1", "x"),
}

KEYS = one_of(*("a", "b", "c d", "e/f", "g.h", "i-j", "ü", "k:l"))
BAD_KEYS = one_of("", "a" * 250, "a" * 251, "..", "a/../b", "/a", "a//b", "a/", "./a", "a#b", "a$", 'q"', 5, None)
keys = st.integers(0, 14).flatmap(lambda luck: KEYS if luck else BAD_KEYS)
values = one_of("1", "x", "x", "y", "", "Größe", "a'b", "100%", "x" * 500, 5, 1.5, True, None)
numbers = one_of(0, 1, 1.0, -1.5, 2.5, 3, "4", "NaN", "Infinity", "-Infinity", 1e308, "x", None, True, [1])
times = one_of(0, 1, 1000, 1000, "1001", 1_700_000_000_000, 1_700_000_000_001, -1, 1.5, None, "x")
steps = one_of(0, 1, 2, 3, "4", -1, 2**31, 2**63 - 1, None, 1.5, "x")
stages = one_of("None", "Staging", "Production", "Archived", "production", "ARCHIVED", "Other", "", None)
sizes = one_of(None, 1, 2, 3, 1000, 0, -1, "2", 50_000, 50_001, 10**6)
aliases = one_of("champion", "b", "c_1", "latest", "v1", "V2", "a b", "", "x" * 255, "x" * 256, "a.b")
names = one_of("first", "second", "third", "Fourth", "a.b", "c d", "", "x" * 500, "x" * 501, 5, None)
experiment_names = names.map(Own)
model_names = one_of("m1", "m2", "m3", "M1", "a/b", "a:b", "", " ", "x" * 240, "x" * 300, 5, None).map(Own)
texts = one_of("", "words", "x" * 5000, None, 5)


def fields(**each: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A body; a None leaves the field out, and now and then one is lost that should be there."""
    given = st.fixed_dictionaries({name: _strategy(value) for name, value in each.items()})
    # A search without its filter would find what other programs have made.
    losable = [name for name in each if not name.startswith("filter")]
    lost = st.integers(0, 25).flatmap(lambda luck: st.none() if luck else one_of(None, *losable))
    return st.builds(
        lambda body, without: {name: value for name, value in body.items() if name != without and value is not None},
        given,
        lost,
    )


def _strategy(value: Any) -> st.SearchStrategy[Any]:
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


def act(method: str, path: str, makes: str = "", /, **each: Any) -> st.SearchStrategy[Act]:
    return st.builds(Act, st.just(method), st.just(path), fields(**each), st.just(makes))


def pair(key: Any = keys, value: Any = values) -> st.SearchStrategy[Any]:
    return fields(key=key, value=value)


def some(each: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(each, max_size=most)


def orders(*keys: str) -> st.SearchStrategy[list[str]]:
    """An order of up to two keys."""
    return some(one_of(*keys), 2)


within = st.lists(refs("experiment"), min_size=1, max_size=2)
metric = fields(key=keys, value=numbers, timestamp=times, step=steps)
experiment, run, model, version, logged = (refs(kind) for kind in NOBODY)
views = one_of(None, "ACTIVE_ONLY", "DELETED_ONLY", "ALL", "OTHER")

run_conditions = one_of(
    *("metrics.a > 0", "metrics.a = 1", "metric.a != 1", "metrics.`c d` <= 3", "metrics.a < 'x'", "metrics.nan = 1"),
    *("params.a = 'x'", "params.a != 'x'", "parameter.b LIKE 'x%'", "params.a ILIKE 'X'", "params.a > 'x'"),
    *("params.a IS NULL", "tags.a = 'x'", "tag.a IS NOT NULL", 'tags.`g.h` = "y"', "tags.a IN ('x')"),
    *("attributes.status = 'RUNNING'", "status != 'FINISHED'", "attr.run_name = 'one'", "run_name LIKE '%o%'"),
    *("attributes.start_time > 500", "start_time <= 1000", "end_time > 0", "start_time = 'x'", "user_id = 'me'"),
    *(
        "attributes.nothing = 1",
        "metrics.a",
        "metrics.a >",
        "= 1",
        "a.b.c = 1",
        "params.a = x",
        "'",
        "run_id IN ('x', 'y')",
    ),
)
filters = one_of(None, "").flatmap(
    lambda none: st.one_of(
        st.just(none),
        run_conditions,
        st.lists(run_conditions, min_size=2, max_size=3).map(" and ".join),
    )
)
run_orders = orders(
    *("metrics.a", "metrics.a DESC", "params.a", "tags.a desc", "start_time", "attributes.start_time ASC"),
    *("run_name DESC", "status", "end_time", "attributes.x", "metrics.a UP", "", "metrics.`c d` DESC", "params.b desc"),
    *("user_id", "tags.a", "created DESC", "run_name", "end_time desc"),
)
experiment_filters = one_of(
    *(None, "", "name LIKE '%first'", "name ILIKE '%SECOND'", "tags.a = 'x'", "tags.a IS NULL", "creation_time > 5"),
    *(
        "attribute.name != 'Default'",
        "tags.a != 'x'",
        "name > 'a'",
        "creation_time = 'x'",
        "params.a = 'x'",
        "name = 5",
    ),
).map(Within)
experiment_orders = orders("name", "name DESC", "experiment_id", "x", "tags.a", "experiment_id DESC")
model_filters = one_of(
    *(
        None,
        "",
        "name LIKE 'm%'",
        "name = 'm1'",
        "name ILIKE 'M%'",
        "tags.a = 'x'",
        "name > 'a'",
        "x = 'y'",
        "tags.a != 'x'",
    ),
).map(Within)
version_filters = one_of(
    *(None, "", "name = 'm1'", "version_number > 1", "version_number = 'x'", "tags.a = 'x'", "source_path LIKE 's3%'"),
    *("name LIKE 'm%'", "run_id = 'x'", "run_id IN ('x', 'y')", "nothing = 'a'"),
).map(Within)
model_orders = some(one_of("name", "name DESC", "last_updated_timestamp", "timestamp DESC", "x", "version_number"), 1)
sources = one_of("s3://bucket/a", "s3://bucket/b", "", None, 5, "dbfs:/x", "gs://b/c")
logged_filters = one_of(
    *(None, "", "name = 'net'", "name LIKE 'n%'", "attributes.model_type = 't'", "params.a = 'x'", "tags.a != 'x'"),
    *("metrics.a > 0", "metrics.a = 1 AND name = 'net'", "status = 'READY'", "status != 'FAILED'", "name > 'a'"),
    *("creation_timestamp > 5", "params.a ILIKE 'X'", "nothing = 'x'", "'", "model_type IN ('t')"),
)
GIVEN_NAMES = one_of("one", "two", "", None)

EXPERIMENTS = [
    act("POST", "experiments/create", "experiment", name=experiment_names, tags=some(pair(keys, values), 2)),
    act("GET", "experiments/get", experiment_id=experiment),
    act("GET", "experiments/get-by-name", experiment_name=experiment_names),
    act("POST", "experiments/update", experiment_id=experiment, new_name=experiment_names),
    act("POST", "experiments/delete", experiment_id=experiment),
    act("POST", "experiments/restore", experiment_id=experiment),
    act("POST", "experiments/set-experiment-tag", experiment_id=experiment, key=keys, value=values),
    act("POST", "experiments/delete-experiment-tag", experiment_id=experiment, key=keys),
    act(
        *("POST", "experiments/search"),
        filter=experiment_filters,
        order_by=experiment_orders,
        max_results=sizes,
        view_type=views,
    ),
]
RUNS = [
    act(
        *("POST", "runs/create", "run"),
        experiment_id=experiment,
        user_id=one_of("me", "you", None, ""),
        run_name=GIVEN_NAMES,
        start_time=st.just(Now()),
        tags=some(pair(), 2),
    ),
    act("GET", "runs/get", run_id=run),
    act(
        *("POST", "runs/update"),
        run_id=run,
        status=one_of("FINISHED", "FAILED", "RUNNING", "KILLED", "SCHEDULED", "X", None),
        end_time=one_of(5000, "6000", None, -1),
        run_name=GIVEN_NAMES,
    ),
    act("POST", "runs/delete", run_id=run),
    act("POST", "runs/restore", run_id=run),
    act("POST", "runs/log-metric", run_id=run, key=keys, value=numbers, timestamp=times, step=steps),
    act("POST", "runs/log-parameter", run_id=run, key=keys, value=values),
    act("POST", "runs/set-tag", run_id=run, key=keys, value=values),
    act("POST", "runs/delete-tag", run_id=run, key=keys),
    act("POST", "runs/log-batch", run_id=run, metrics=some(metric), params=some(pair()), tags=some(pair())),
    act("GET", "metrics/get-history", run_id=run, metric_key=keys, max_results=sizes),
    act(
        *("GET", "metrics/get-history-bulk-interval"),
        run_ids=st.lists(run, min_size=1, max_size=2),
        metric_key=keys,
        start_step=one_of(None, 0, 1, 3),
        end_step=one_of(None, 2, 3, 10, -1),
        max_results=one_of(None, 1, 2, 3, 2500, 2501, 0),
    ),
    act(
        *("POST", "runs/search"),
        experiment_ids=within,
        filter=filters,
        order_by=run_orders,
        max_results=sizes,
        run_view_type=views,
    ),
]
REGISTRY = [
    act("POST", "registered-models/create", "model", name=model_names, description=texts, tags=some(pair(), 2)),
    act("GET", "registered-models/get", name=model),
    act("POST", "registered-models/rename", name=model, new_name=model_names),
    act("PATCH", "registered-models/update", name=model, description=texts),
    act("DELETE", "registered-models/delete", name=model),
    act("GET", "registered-models/search", filter=model_filters, order_by=model_orders, max_results=sizes),
    act("POST", "registered-models/get-latest-versions", name=model, stages=some(stages, 2)),
    act("POST", "registered-models/set-tag", name=model, key=keys, value=values),
    act("DELETE", "registered-models/delete-tag", name=model, key=keys),
    act("POST", "registered-models/alias", name=model, alias=aliases, version=version),
    act("GET", "registered-models/alias", name=model, alias=aliases),
    act("DELETE", "registered-models/alias", name=model, alias=aliases),
    act(
        "POST", "model-versions/create", "version", name=model, source=sources, description=texts, tags=some(pair(), 2)
    ),
    act("GET", "model-versions/get", name=model, version=version),
    act("PATCH", "model-versions/update", name=model, version=version, description=texts),
    act(
        *("POST", "model-versions/transition-stage"),
        name=model,
        version=version,
        stage=stages,
        archive_existing_versions=one_of(True, False, None),
    ),
    act("DELETE", "model-versions/delete", name=model, version=version),
    act("GET", "model-versions/search", filter=version_filters, order_by=model_orders, max_results=sizes),
    act("GET", "model-versions/get-download-uri", name=model, version=version),
    act("POST", "model-versions/set-tag", name=model, version=version, key=keys, value=values),
    act("DELETE", "model-versions/delete-tag", name=model, version=version, key=keys),
]
LOGGED = [
    act(
        *("POST", "logged-models", "logged"),
        experiment_id=experiment,
        name=one_of("net", "a/b", "tree", "x.y"),
        model_type=one_of("t", None),
        source_run_id=run,
        params=some(pair(), 2),
        tags=some(pair(), 2),
    ),
    act("GET", "logged-models/{logged}", logged=logged),
    act(
        *("PATCH", "logged-models/{logged}"),
        logged=logged,
        status=one_of("LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "X", None),
    ),
    act("PATCH", "logged-models/{logged}/tags", logged=logged, tags=some(pair(), 2)),
    act("DELETE", "logged-models/{logged}/tags/a", logged=logged),
    act("DELETE", "logged-models/{logged}", logged=logged),
    act(
        *("POST", "logged-models/search"),
        experiment_ids=within,
        filter=logged_filters,
        order_by=some(
            fields(
                field_name=one_of("name", "creation_timestamp", "metrics.a", "metrics.`c d`", "model_type", "x"),
                ascending=one_of(True, False, None),
            ),
            1,
        ),
        max_results=one_of(None, 1, 2, 10, 0, -1),
    ),
    act(
        *("POST", "runs/log-metric"),
        run_id=run,
        key=keys,
        value=one_of(0, 1, 2.5, -1.5),
        timestamp=one_of(0, 1000, 1001),
        step=one_of(0, 1, 2),
        model_id=logged,
    ),
    act("POST", "logged-models/{logged}/params", logged=logged, params=some(pair(), 2)),
    act("POST", "runs/outputs", run_id=run, models=some(fields(model_id=logged, step=one_of(0, 1, None)), 2)),
]
