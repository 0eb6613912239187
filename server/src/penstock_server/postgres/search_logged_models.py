"""Answers searches of logged models: one statement, of which it is left to the planner which index finds them.

A metric of a model has many points, each on some dataset: a condition is met when one of them meets it, and the order
is by the last. Of datasets that a search names only the points on these count.
"""

# ruff: noqa: S608 — statements are put together from constants; values are parameters.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.logged_models import DatasetFilter, LoggedModelId
from penstock_server.model.search_tree import Comparison, Condition, Entity, Field, Membership, Order
from penstock_server.postgres.database import Connection
from penstock_server.postgres.search import fetch, token_after
from penstock_server.postgres.search_conditions import Conditions, Noun, Parameters
from penstock_server.postgres.search_order import ABSENT, NAN, THERE, Column, columns, decode, entered_after, nothing

_ATTRIBUTES = {
    "name": "m.name",
    "model_id": "('m-' || encode(uuid_send(m.id), 'hex'))",
    "model_type": "m.model_type",
    "status": "m.status",
    "source_run_id": "m.source_run_id",
    "experiment_id": "m.experiment_id",
    "creation_time": "m.created_ms",
    "last_update_time": "m.updated_ms",
}
_LOGGED_MODELS = Noun(
    row="m",
    table="logged_models",
    owner="model_id",
    keyed={
        Entity.METRIC: "logged_model_metrics",
        Entity.PARAM: "logged_model_params",
        Entity.TAG: "logged_model_tags",
    },
    attributes=_ATTRIBUTES,
    required=frozenset(_ATTRIBUTES),
)
_TAIL = [Column("m.created_ms", "int8", descending=True), Column("m.id", "uuid")]


@dataclass(slots=True)
class _Conditions(Conditions):
    """On models. `datasets`: " AND …" that the points `{x}` of metrics must meet."""

    datasets: str = ""

    def key(self, subject: Field, x: str) -> str:
        """Of the rows `x` those of this key."""
        own = f"{x}.key = {self.parameters.add(subject.key)}"
        return own + self.datasets.format(x=x) if subject.entity is Entity.METRIC else own

    def keyed_test(self, leaf: Comparison | Membership, x: str) -> str:
        """The test on a row `x` of a table of keyed values."""
        if leaf.field.entity is Entity.METRIC:
            return self.test(leaf, f"{x}.value")
        return Conditions.keyed_test(self, leaf, x)


async def search_logged_models(
    conn: Connection,
    workspace_id: WorkspaceId,
    experiment_ids: Sequence[ExperimentId],
    where: Condition | None,
    order: Sequence[tuple[Order, DatasetFilter]],
    datasets: Sequence[DatasetFilter],
    limit: int,
    page_token: str,
) -> tuple[list[LoggedModelId], str]:
    """The active models of these experiments that meet `where`, and the token of the next page.

    Metrics on `datasets` alone count, if there are some, and each model has one of them. There are `limit` at most,
    fewer where they are long, and the token is "" after the last. Raises InvalidPageToken.
    """
    within = sorted(set(experiment_ids))
    asked = ("logged models", workspace_id, within, repr(where), repr(order), repr(datasets))
    parameters = Parameters()
    workspace, experiments = parameters.add(workspace_id), f"{parameters.add(within)}::bigint[]"
    # An index of the order is of use in one experiment alone.
    which = f"({experiments})[1]" if len(within) == 1 else f"ANY({experiments})"
    scope = f" AND {{x}}.workspace_id = {workspace} AND {{x}}.experiment_id = {which}"
    narrowed = _on(datasets, parameters)
    conditions = _Conditions(_LOGGED_MODELS, parameters, scope, datasets=narrowed)
    keys, joins = _columns(order, conditions)
    sorted_by = keys + _TAIL
    tests = [f"m.lifecycle = 1{scope.format(x='m')}"]
    if where is not None:
        tests.append(conditions.sql(where))
    if narrowed:
        own = f"x.model_id = m.id{scope.format(x='x')}{narrowed.format(x='x')}"
        tests.append(f"EXISTS (SELECT FROM logged_model_metrics x WHERE {own})")
    if page_token:
        key = decode(asked, sorted_by, page_token)
        tests.append(entered_after(sorted_by, key, parameters))
    rows = await fetch(
        conn,
        f"SELECT m.id, {', '.join(column.sql for column in sorted_by)} FROM logged_models m{joins}"
        f" WHERE {' AND '.join(tests)} ORDER BY {', '.join(f'{column.sql} {column.direction}' for column in sorted_by)}"
        f" LIMIT {parameters.add(limit + 1)}",
        parameters,
    )
    limit = await _how_many(conn, [row[0] for row in rows[:limit]])
    return [row[0] for row in rows[:limit]], token_after(asked, rows, limit)


def _on(datasets: Sequence[DatasetFilter], parameters: Parameters) -> str:
    """What the points `{x}` of metrics on one of these have in common, after " AND "; nothing when there are none."""
    tests = []
    for dataset in datasets:
        test = f"{{x}}.dataset_name = {parameters.add(dataset.name)}" if dataset.name else "true"
        if dataset.digest:
            test += f" AND {{x}}.dataset_digest = {parameters.add(dataset.digest)}"
        tests.append(test)
    return f" AND ({' OR '.join(tests)})" if tests else ""


def _columns(order: Sequence[tuple[Order, DatasetFilter]], conditions: _Conditions) -> tuple[list[Column], str]:
    """The columns of the order's keys, and the joins that they need."""
    result: list[Column] = []
    joins = ""
    for index, (key, dataset) in enumerate(order):
        if key.field.entity is not Entity.METRIC:
            result += columns([key], conditions)[0]
            continue
        on = _on([dataset], conditions.parameters) if dataset.name or dataset.digest else ""
        x, own = f"o{index}", f"p.model_id = m.id AND p.key = {conditions.parameters.add(key.field.key)}"
        last = f"p.value FROM logged_model_metrics p WHERE {own}{on.format(x='p')}"
        joins += (
            f" LEFT JOIN LATERAL (SELECT {last} ORDER BY p.time_ms DESC, p.step DESC, p.run_id LIMIT 1) {x} ON true"
        )
        rank = f"CASE WHEN {x}.value < 'NaN' THEN {THERE} WHEN {x}.value = 'NaN' THEN {NAN} ELSE {ABSENT} END"
        value = f"coalesce(nullif({x}.value, 'NaN'), {nothing('float8')})"
        result += [Column(rank, "int8"), Column(value, "float8", key.descending)]
    return result, joins


# What a page of models may take in memory, about; a point of a metric has some 200 bytes.
_PAGE_BYTES = 8 << 20
_FITTING = """
SELECT count(*) FROM (
    SELECT sum(size) OVER (ORDER BY position) - size AS before_it
      FROM (SELECT w.position,
                   coalesce((SELECT sum(octet_length(value)) FROM logged_model_params WHERE model_id = w.id), 0)
                   + coalesce((SELECT sum(octet_length(value)) FROM logged_model_tags WHERE model_id = w.id), 0)
                   + 200 * (SELECT count(*) FROM logged_model_metrics WHERE model_id = w.id) AS size
              FROM unnest($1::uuid[]) WITH ORDINALITY AS w (id, position)) s) s
 WHERE before_it < $2
"""


async def _how_many(conn: Connection, ids: Sequence[LoggedModelId]) -> int:
    """How many of these, from the first on, can be loaded at once; one anyhow."""
    found: int = await conn.fetchval(_FITTING, ids, _PAGE_BYTES)
    return found
