"""What can be asked of each noun that is searched: its fields, and the other names that they go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock_server.model.search_tree import Entity, Type


@dataclass(frozen=True, slots=True)
class Schema:
    """What can be asked of one noun."""

    noun: str
    entities: Mapping[str, Entity]
    attributes: Mapping[str, Type]
    sortable: frozenset[Entity]
    aliases: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    many: frozenset[str] = frozenset()  # attributes of which one thing may have several values
    groups: Mapping[str, str] = field(default_factory=dict)  # what attributes begin with that are asked for by a word
    keys: Mapping[Entity, frozenset[str]] = field(default_factory=dict)  # those of an entity, where they are known
    expressions: bool = False  # whether regular expressions may be asked for
    references: bool = False  # whether a value may be that of what an alias or a stage names


_ATTRIBUTE_WORDS = dict.fromkeys(("attributes", "attribute", "attr"), Entity.ATTRIBUTE)
_TAG_WORDS = dict.fromkeys(("tags", "tag"), Entity.TAG)

RUNS = Schema(
    noun="runs",
    entities={
        **dict.fromkeys(("metrics", "metric"), Entity.METRIC),
        **dict.fromkeys(("params", "param", "parameters", "parameter"), Entity.PARAM),
        **_TAG_WORDS,
        **_ATTRIBUTE_WORDS,
        "run": Entity.ATTRIBUTE,
    },
    attributes={
        "run_id": Type.RUN_ID,
        "run_name": Type.TEXT,
        "status": Type.STATUS,
        "start_time": Type.TIME,
        "end_time": Type.TIME,
        "user_id": Type.TEXT,
        "experiment_id": Type.EXPERIMENT_ID,
        "parent_run_id": Type.RUN_ID,
        "git_commit": Type.TEXT,
        "source_name": Type.TEXT,
        "lifecycle": Type.LIFECYCLE,
        "dataset_name": Type.TEXT,
        "dataset_digest": Type.TEXT,
        "dataset_context": Type.TEXT,
    },
    sortable=frozenset((Entity.METRIC, Entity.PARAM, Entity.TAG, Entity.ATTRIBUTE)),
    many=frozenset(("dataset_name", "dataset_digest", "dataset_context")),
    groups=dict.fromkeys(("datasets", "dataset"), "dataset_"),
    aliases={"created": "start_time", "name": "run_name", "user": "user_id", "lifecycle_stage": "lifecycle"},
    refused={"artifact_uri": "another attribute: where artifacts are kept is the server's affair, search by run_id"},
)
# As MLflow's clients search them, who are told where artifacts are.
MLFLOW_RUNS = replace(RUNS, attributes={**RUNS.attributes, "artifact_uri": Type.TEXT}, refused={})
EXPERIMENTS = Schema(
    noun="experiments",
    entities={**_TAG_WORDS, **_ATTRIBUTE_WORDS, "experiment": Entity.ATTRIBUTE},
    attributes={
        "name": Type.TEXT,
        "experiment_id": Type.EXPERIMENT_ID,
        "creation_time": Type.TIME,
        "last_update_time": Type.TIME,
        "lifecycle": Type.LIFECYCLE,
    },
    sortable=frozenset((Entity.ATTRIBUTE,)),
    aliases={"created": "creation_time", "lifecycle_stage": "lifecycle"},
    refused={"artifact_location": "another attribute: where artifacts are kept is the server's affair"},
)

# MLflow's names of what models and versions share.
_REGISTRY_ALIASES = {
    "aliases": "alias",
    "created": "creation_time",
    "creation_timestamp": "creation_time",
    "current_stage": "stage",
    "last_updated_timestamp": "last_update_time",
    "source_path": "source",
    "timestamp": "last_update_time",
    "user_id": "created_by",
}
MODELS = Schema(
    noun="registered models",
    entities={**_TAG_WORDS, **_ATTRIBUTE_WORDS},
    attributes={
        "name": Type.TEXT,
        "description": Type.TEXT,
        "created_by": Type.TEXT,
        "creation_time": Type.TIME,
        "last_update_time": Type.TIME,
        "alias": Type.TEXT,
        "stage": Type.STAGE,
        "run_id": Type.RUN_ID,
        "source": Type.TEXT,
    },
    sortable=frozenset((Entity.ATTRIBUTE,)),
    aliases=_REGISTRY_ALIASES,
    many=frozenset(("alias", "stage", "run_id", "source")),
)
MODEL_VERSIONS = Schema(
    noun="model versions",
    entities={**_TAG_WORDS, **_ATTRIBUTE_WORDS},
    attributes={
        "name": Type.TEXT,
        "version": Type.VERSION,
        "run_id": Type.RUN_ID,
        "source": Type.TEXT,
        "source_path": Type.TEXT,
        "path": Type.TEXT,
        "stage": Type.STAGE,
        "status": Type.VERSION_STATUS,
        "alias": Type.TEXT,
        "description": Type.TEXT,
        "created_by": Type.TEXT,
        "creation_time": Type.TIME,
        "last_update_time": Type.TIME,
    },
    sortable=frozenset((Entity.ATTRIBUTE,)),
    aliases={**_REGISTRY_ALIASES, "source_path": "source_path", "version_number": "version"},
    many=frozenset(("alias",)),
)
LOGGED_MODELS = Schema(
    noun="logged models",
    entities={
        **dict.fromkeys(("metrics", "metric"), Entity.METRIC),
        **dict.fromkeys(("params", "param"), Entity.PARAM),
        **_TAG_WORDS,
        **_ATTRIBUTE_WORDS,
    },
    attributes={
        "name": Type.TEXT,
        "model_id": Type.TEXT,
        "model_type": Type.TEXT,
        "status": Type.MODEL_STATUS,
        "source_run_id": Type.TEXT,
        "experiment_id": Type.EXPERIMENT_ID,
        "creation_time": Type.TIME,
        "last_update_time": Type.TIME,
    },
    sortable=frozenset((Entity.METRIC, Entity.ATTRIBUTE)),
    aliases={
        **dict.fromkeys(("created", "creation_timestamp", "creation_timestamp_ms"), "creation_time"),
        **dict.fromkeys(("last_updated_timestamp", "last_updated_timestamp_ms"), "last_update_time"),
    },
)
# Of a span that is `attributes.` and a key as well.
TRACES = Schema(
    noun="traces",
    entities={
        **_TAG_WORDS,
        **_ATTRIBUTE_WORDS,
        "trace": Entity.ATTRIBUTE,
        **dict.fromkeys(("metadata", "request_metadata"), Entity.METADATA),
        "span": Entity.SPAN,
        "feedback": Entity.FEEDBACK,
        "expectation": Entity.EXPECTATION,
        "issue": Entity.ISSUE,
    },
    attributes={
        "timestamp_ms": Type.TIME,
        "execution_time_ms": Type.TIME,
        "end_time_ms": Type.TIME,
        "status": Type.TEXT,
        "name": Type.TEXT,
        "request_id": Type.TEXT,
        "client_request_id": Type.TEXT,
        "experiment_id": Type.EXPERIMENT_ID,
        "run_id": Type.TEXT,
        "prompt": Type.TEXT,
        "text": Type.TEXT,
    },
    sortable=frozenset((Entity.ATTRIBUTE, Entity.TAG, Entity.METADATA)),
    aliases={
        **dict.fromkeys(("timestamp", "request_time"), "timestamp_ms"),
        **dict.fromkeys(("execution_time", "execution_duration"), "execution_time_ms"),
        "end_time": "end_time_ms",
        "state": "status",
        "trace_id": "request_id",
    },
    many=frozenset(("prompt", "text")),
    keys={
        Entity.SPAN: frozenset(("name", "type", "status", "content")),
        Entity.ISSUE: frozenset(("id",)),
    },
    expressions=True,
)
# What a version may be promoted by: its run's fields, its own tags (before the run's), its number and stage.
GATES = replace(
    RUNS,
    noun="gates",
    attributes={
        **{name: type_ for name, type_ in RUNS.attributes.items() if name not in RUNS.many},
        "version": Type.VERSION,
        "stage": Type.STAGE,
    },
    sortable=frozenset(),
    many=frozenset(),
    groups={},
    references=True,
)
