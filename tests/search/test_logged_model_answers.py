"""What PostgreSQL answers of logged models is what plain Python answers, page by page."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oracle import Thing, answer
from trees import conditions, orders

from penstock_server.model.access import WorkspaceId
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.lifecycle import Lifecycle, View
from penstock_server.model.logged_models import DatasetFilter, LoggedModelStatus
from penstock_server.model.search import LOGGED_MODELS
from penstock_server.postgres.database import Connection, Database
from penstock_server.postgres.search_logged_models import search_logged_models

WORKSPACE = WorkspaceId(1)
ANY = DatasetFilter("")

keys = st.sampled_from(["a", "b"])
texts = st.sampled_from(["", "a", "A", "ab", "x%", "水", "x" * 128, "x" * 129])
numbers = st.sampled_from([-1.0, -0.0, 1.0, math.inf, -math.inf])
some = st.sampled_from(["", "a", "R"])

rows_of_models = st.lists(
    st.fixed_dictionaries(
        {
            "experiment": st.sampled_from([1, 1, 1, 2, 3]),
            "name": st.sampled_from(["a", "A", "R", "水"]),
            "type": some,
            "run": some,
            "status": st.sampled_from(LoggedModelStatus),
            "lifecycle": st.sampled_from([1, 1, 1, 2]),
            "created": st.integers(0, 3),
            "updated": st.integers(0, 3),
            "params": st.dictionaries(keys, texts),
            "tags": st.dictionaries(keys, texts),
            "metrics": st.dictionaries(keys, st.just(math.nan) | numbers),
        }
    ),
    min_size=3,
    max_size=12,
)
searches = st.lists(
    st.tuples(
        st.none() | conditions(LOGGED_MODELS, keys, texts, numbers),
        orders(LOGGED_MODELS, keys),
        st.sampled_from([[1], [2], [1, 2], [1, 3], [9]]),
        st.sampled_from([1, 2, 3, 100]),
    ),
    min_size=8,
    max_size=8,
)


async def insert(conn: Connection, rows: Sequence[dict[str, Any]]) -> list[Thing]:
    """The models, in three experiments, the third in another workspace; those in ours as the oracle has them."""
    await conn.execute(
        "INSERT INTO workspaces (id, name) OVERRIDING SYSTEM VALUE VALUES (2, 'other');"
        "INSERT INTO experiments (id, workspace_id, name, created_ms, updated_ms)"
        "VALUES (1, 1, 'one', 0, 0), (2, 1, 'two', 0, 0), (3, 2, 'three', 0, 0)"
    )
    things = []
    for number, row in enumerate(rows):
        model_id, experiment = uuid.UUID(int=number), row["experiment"]
        place = model_id, 2 if experiment == 3 else 1, experiment
        await conn.execute(
            "INSERT INTO logged_models (id, workspace_id, experiment_id, name, model_type, source_run_id, status,"
            " lifecycle, created_ms, updated_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            *place, row["name"], row["type"], row["run"], row["status"], row["lifecycle"], row["created"],
            row["updated"],
        )  # fmt: skip
        for table in ("params", "tags"):
            await conn.executemany(
                f"INSERT INTO logged_model_{table} (model_id, workspace_id, experiment_id, key, value)"
                " VALUES ($1, $2, $3, $4, $5)",
                [(*place, *each) for each in row[table].items()],
            )
        await conn.executemany(
            "INSERT INTO logged_model_metrics"
            " (model_id, workspace_id, experiment_id, run_id, key, time_ms, step, value)"
            " VALUES ($1, $2, $3, $1, $4, 0, 0, $5)",
            [(*place, *each) for each in row["metrics"].items()],
        )
        if experiment != 3:
            things.append(
                Thing(
                    id=model_id,
                    newest=(-row["created"], number),
                    lifecycle=Lifecycle(row["lifecycle"]),
                    attributes={
                        "name": row["name"],
                        "model_id": f"m-{model_id.hex}",
                        "model_type": row["type"],
                        "status": row["status"].name,
                        "source_run_id": row["run"],
                        "experiment_id": experiment,
                        "creation_time": row["created"],
                        "last_update_time": row["updated"],
                    },
                    metrics=row["metrics"],
                    params=row["params"],
                    tags=row["tags"],
                )
            )
    return things


@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate])
@given(rows=rows_of_models, asked=searches)
def test_models_are_those_that_python_finds(db: Database, run: Any, rows: Any, asked: Any) -> None:
    async def check() -> None:
        async with db.connection() as conn:
            transaction = conn.transaction()
            await transaction.start()
            try:
                things = await insert(conn, rows)
                for where, order, within, limit in asked:
                    here = [thing for thing in things if thing.attributes["experiment_id"] in within]
                    by = [(each, ANY) for each in order]
                    found: list[uuid.UUID] = []
                    token, more = "", True
                    while more:
                        page, token = await search_logged_models(
                            conn, WORKSPACE, list(map(ExperimentId, within)), where, by, [], limit, token
                        )
                        found += page
                        more = bool(token)
                        assert not more or len(page) == limit
                    assert found == answer(here, where, order, View.ACTIVE), (where, order, within, limit)
            finally:
                await transaction.rollback()

    run(check())
