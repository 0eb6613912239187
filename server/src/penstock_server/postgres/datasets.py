"""What runs take in and bring forth, in PostgreSQL. Every function works in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_server.model.access import WorkspaceId
from penstock_server.model.changes import RunRef
from penstock_server.model.datasets import CONTEXT, Dataset, DatasetInput, DatasetSummary, Lineage, ModelOutput
from penstock_server.model.experiments import ExperimentId
from penstock_server.model.runs import RunId
from penstock_server.postgres.database import Connection

# The first that an experiment hears of a dataset stays. In an order that is the same for all.
_ADD_DATASETS = """
INSERT INTO datasets (experiment_id, workspace_id, name, digest, source_type, source, schema, profile)
SELECT $1, $2, d.* FROM unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
                     AS d (name, digest, source_type, source, schema, profile)
 ORDER BY d.name COLLATE "C", d.digest COLLATE "C"
ON CONFLICT DO NOTHING
"""
_ADD_INPUT = """
INSERT INTO run_datasets (run_id, workspace_id, experiment_id, name, digest, context, tag_keys, tag_values)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING
"""


async def add_inputs(conn: Connection, run: RunRef, inputs: Sequence[DatasetInput]) -> None:
    """A run takes in datasets; what it has already stays as it is."""
    datasets = list({(each.dataset.name, each.dataset.digest): each.dataset for each in reversed(inputs)}.values())
    await conn.execute(
        _ADD_DATASETS,
        run.experiment_id,
        run.workspace_id,
        [each.name for each in datasets],
        [each.digest for each in datasets],
        [each.source_type for each in datasets],
        [each.source for each in datasets],
        [each.schema for each in datasets],
        [each.profile for each in datasets],
    )
    place = run.run_id, run.workspace_id, run.experiment_id
    rows = []
    for each in inputs:
        keys = sorted(each.tags)
        values = [each.tags[key] for key in keys]
        rows.append((*place, each.dataset.name, each.dataset.digest, each.tags.get(CONTEXT), keys, values))
    await conn.executemany(_ADD_INPUT, rows)


_PUT_MODELS = """
INSERT INTO run_models AS old (run_id, workspace_id, output, model_id, step)
SELECT $1, $2, $3, m.* FROM unnest($4::text[], $5::bigint[]) AS m (model_id, step) ORDER BY m.model_id
ON CONFLICT (run_id, output, model_id) DO UPDATE SET step = excluded.step WHERE old.step <> excluded.step
"""


async def put_models(conn: Connection, run: RunRef, models: Sequence[ModelOutput], *, output: bool) -> None:
    """A run takes in, or brings forth, logged models."""
    steps = dict(models)
    await conn.execute(_PUT_MODELS, run.run_id, run.workspace_id, output, list(steps), list(steps.values()))


# Without what may be long of datasets, which many runs have in common. Models come after datasets.
_OF_RUNS = """
SELECT run_id, NULL::boolean AS output, name, digest, experiment_id, tag_keys, tag_values, NULL AS model_id,
       position AS step
  FROM run_datasets WHERE run_id = ANY($1) AND workspace_id = $2
UNION ALL
SELECT run_id, output, NULL, NULL, NULL, NULL, NULL, model_id, step
  FROM run_models WHERE run_id = ANY($1) AND workspace_id = $2
 ORDER BY step, model_id
"""
_DATASETS = """
SELECT d.experiment_id, d.name, d.digest, d.source_type, d.source, d.schema, d.profile
  FROM unnest($1::bigint[], $2::text[], $3::text[]) AS w (experiment_id, name, digest)
  JOIN datasets d USING (experiment_id, name, digest)
"""


async def of_runs(conn: Connection, workspace_id: WorkspaceId, run_ids: Sequence[RunId]) -> dict[RunId, Lineage]:
    """What each of these runs took in and brought forth; runs without any are not among them."""
    rows = await conn.fetch(_OF_RUNS, run_ids, workspace_id)
    wanted = {(row["experiment_id"], row["name"], row["digest"]) for row in rows if row["output"] is None}
    known: dict[tuple[int, str, str], Dataset] = {}
    if wanted:
        for experiment_id, *fields in await conn.fetch(_DATASETS, *zip(*wanted, strict=True)):
            known[experiment_id, fields[0], fields[1]] = Dataset(*fields)
    found: dict[RunId, Lineage] = {}
    for row in rows:
        lineage = found.setdefault(row["run_id"], Lineage())
        if row["output"] is None:
            dataset = known[row["experiment_id"], row["name"], row["digest"]]
            tags = dict(zip(row["tag_keys"], row["tag_values"], strict=True))
            lineage.datasets.append(DatasetInput(dataset, tags))
        elif row["output"]:
            lineage.outputs.append(ModelOutput(row["model_id"], row["step"]))
        else:
            lineage.models.append(row["model_id"])
    return found


_SUMMARIES = """
SELECT DISTINCT experiment_id, name, digest, context FROM run_datasets
 WHERE workspace_id = $1 AND experiment_id = ANY($2)
 ORDER BY experiment_id, name, digest, context NULLS FIRST LIMIT 1000
"""


async def summaries(
    conn: Connection, workspace_id: WorkspaceId, experiment_ids: Sequence[ExperimentId]
) -> list[DatasetSummary]:
    """The datasets that runs of these experiments took in, 1,000 of them at most."""
    return [DatasetSummary(*row) for row in await conn.fetch(_SUMMARIES, workspace_id, experiment_ids)]
