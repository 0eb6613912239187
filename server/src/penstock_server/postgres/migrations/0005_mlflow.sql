-- What MLflow's clients keep beside experiments, runs and registered models.

-- Where clients of MLflow write the files of an experiment's runs by themselves, as they said; empty: in our store. The
-- server hands it out, and never opens it.
ALTER TABLE experiments ADD COLUMN artifact_location text NOT NULL DEFAULT '';

-- Logged models: what MLflow 3 makes when a model is logged. The id is written m-<32 hexadecimal digits>.
CREATE TABLE logged_models (
    id            uuid PRIMARY KEY,
    workspace_id  integer NOT NULL REFERENCES workspaces,
    experiment_id bigint NOT NULL REFERENCES experiments,
    name          text NOT NULL,
    model_type    text NOT NULL DEFAULT '',
    status        smallint NOT NULL DEFAULT 1,     -- 1 pending, 2 ready, 3 upload failed
    lifecycle     smallint NOT NULL DEFAULT 1,     -- 1 active, 2 deleted
    source_run_id uuid,                            -- no foreign key: it outlives its run
    created_ms    bigint NOT NULL,
    updated_ms    bigint NOT NULL,
    deleted_ms    bigint
);

-- Traces: what happened inside of one request of an application. The id is as its client made it.
CREATE TABLE traces (
    id            uuid PRIMARY KEY,                -- of its files
    workspace_id  integer NOT NULL REFERENCES workspaces,
    experiment_id bigint NOT NULL REFERENCES experiments,
    trace_id      text NOT NULL,                   -- tr-<32 hexadecimal digits>, as a rule
    UNIQUE (workspace_id, trace_id)
);
