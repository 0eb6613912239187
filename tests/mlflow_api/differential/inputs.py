"""Random requests about the datasets that runs take in."""

from __future__ import annotations

from differential.acts import act, fields, keys, one_of, orders, run, sizes, some, values, views, within

dataset = fields(
    name=one_of("mnist", "mnist", "iris", "a/b", "Größe", "", "x" * 500, "x" * 501, 5),
    digest=one_of("d1", "d1", "d2", "", "x" * 36, "x" * 37),
    source_type=one_of("local", "s3", None),
    source=one_of("{}", '{"uri": "s3://b/c"}', None),
    schema=one_of(None, "s"),
    profile=one_of(None, '{"rows": 5}'),
)
dataset_input = fields(
    dataset=dataset,
    tags=some(fields(key=one_of("mlflow.data.context", "mlflow.data.context", "a"), value=one_of("train", "test")), 2),
)
conditions = one_of(
    *(None, "", "datasets.name = 'mnist'", "dataset.name != 'mnist'", "datasets.digest = 'd1'"),
    *("datasets.context = 'train'", "datasets.name LIKE 'mn%'", "datasets.name ILIKE 'MN%'"),
    *(
        "datasets.name IN ('mnist', 'iris')",
        "datasets.digest NOT IN ('d1')",
        "datasets.name = 'mnist' and params.a = 'x'",
    ),
    *(
        "datasets.x = 'y'",
        "datasets.name > 'a'",
        "datasets.name = 5",
        "datasets.context = 'train' AND datasets.name = 'iris'",
    ),
)
INPUTS = [
    act("POST", "runs/log-inputs", run_id=run, datasets=some(dataset_input)),
    act("POST", "runs/log-inputs", run_id=run, datasets=some(dataset_input)),
    act("GET", "runs/get", run_id=run),
    act("POST", "runs/log-parameter", run_id=run, key=keys, value=values),
    act("POST", "runs/delete", run_id=run),
    act(
        *("POST", "runs/search"),
        experiment_ids=within,
        filter=conditions,
        order_by=orders("start_time", "start_time DESC", "params.a"),
        max_results=sizes,
        run_view_type=views,
    ),
    act("POST", "/ajax-api/2.0/mlflow/experiments/search-datasets", experiment_ids=within),
]
