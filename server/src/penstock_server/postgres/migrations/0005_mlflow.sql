-- What MLflow's clients keep beside experiments, runs and registered models.

-- Where clients of MLflow write the files of an experiment's runs by themselves, as they said; empty: in our store. The
-- server hands it out, and never opens it.
ALTER TABLE experiments ADD COLUMN artifact_location text NOT NULL DEFAULT '';

-- Logged models: what MLflow 3 makes when a model is logged. The id is written m-<32 hexadecimal digits>.
CREATE TABLE logged_models (
    id            uuid PRIMARY KEY,
    workspace_id  integer NOT NULL REFERENCES workspaces,
    experiment_id bigint NOT NULL REFERENCES experiments,
    name          text COLLATE "C" NOT NULL,
    model_type    text NOT NULL DEFAULT '',
    status        smallint NOT NULL DEFAULT 1,     -- 1 pending, 2 ready, 3 upload failed
    lifecycle     smallint NOT NULL DEFAULT 1,     -- 1 active, 2 deleted, for good
    source_run_id text NOT NULL DEFAULT '',        -- as its client says it; it may be no run of ours
    created_ms    bigint NOT NULL,
    updated_ms    bigint NOT NULL,
    deleted_ms    bigint
);
CREATE INDEX logged_models_newest ON logged_models (workspace_id, experiment_id, created_ms DESC, id);
CREATE INDEX logged_models_name ON logged_models (workspace_id, experiment_id, name, created_ms DESC, id);
CREATE INDEX logged_models_run ON logged_models (workspace_id, experiment_id, source_run_id);

CREATE TABLE logged_model_params (
    model_id      uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    workspace_id  integer NOT NULL,
    experiment_id bigint NOT NULL,
    key           text NOT NULL,
    value         text NOT NULL,
    PRIMARY KEY (model_id, key)
);
CREATE INDEX logged_model_params_search
    ON logged_model_params (workspace_id, experiment_id, key, left(value, 128) COLLATE "C");

CREATE TABLE logged_model_tags (
    model_id      uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    workspace_id  integer NOT NULL,
    experiment_id bigint NOT NULL,
    key           text NOT NULL,
    value         text NOT NULL,
    PRIMARY KEY (model_id, key)
);
CREATE INDEX logged_model_tags_search
    ON logged_model_tags (workspace_id, experiment_id, key, left(value, 128) COLLATE "C");

-- Points that runs have logged of a model, those on one dataset and another. The experiment is that of the model.
CREATE TABLE logged_model_metrics (
    model_id       uuid NOT NULL REFERENCES logged_models ON DELETE CASCADE,
    workspace_id   integer NOT NULL,
    experiment_id  bigint NOT NULL,
    run_id         uuid NOT NULL,                  -- no foreign key: `gc` removes the run's points before the run
    key            text NOT NULL,
    time_ms        bigint NOT NULL,
    step           bigint NOT NULL,
    value          double precision NOT NULL,
    dataset_name   text NOT NULL DEFAULT '',
    dataset_digest text NOT NULL DEFAULT ''
);
-- A point that is sent again is there once. (A dataset's name is longer than an entry of an index may be.)
CREATE UNIQUE INDEX logged_model_metrics_latest ON logged_model_metrics
    (model_id, key, time_ms DESC, step DESC, run_id, value, hashtextextended(dataset_name || '@' || dataset_digest, 0));
CREATE INDEX logged_model_metrics_search ON logged_model_metrics (workspace_id, experiment_id, key, value);
CREATE INDEX logged_model_metrics_run ON logged_model_metrics (run_id);

-- Datasets that runs took in, each once in an experiment.
CREATE TABLE datasets (
    experiment_id bigint NOT NULL REFERENCES experiments ON DELETE CASCADE,
    name          text COLLATE "C" NOT NULL,
    digest        text COLLATE "C" NOT NULL,
    workspace_id  integer NOT NULL,
    source_type   text NOT NULL,
    source        text NOT NULL,
    schema        text,
    profile       text,
    PRIMARY KEY (experiment_id, name, digest)
);
CREATE TABLE run_datasets (
    run_id        uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    workspace_id  integer NOT NULL,
    experiment_id bigint NOT NULL,
    name          text COLLATE "C" NOT NULL,
    digest        text COLLATE "C" NOT NULL,
    context       text,                            -- what it was taken for: the tag mlflow.data.context
    tag_keys      text[] NOT NULL,
    tag_values    text[] NOT NULL,
    position      bigint GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (run_id, name, digest)
);
CREATE INDEX run_datasets_name ON run_datasets (workspace_id, experiment_id, name, digest);
CREATE INDEX run_datasets_digest ON run_datasets (workspace_id, experiment_id, digest);

-- Logged models that runs took in and brought forth. The id is as the client says it; it may be no model of ours.
CREATE TABLE run_models (
    run_id       uuid NOT NULL REFERENCES runs ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    output       boolean NOT NULL,
    model_id     text NOT NULL,
    step         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (run_id, output, model_id)
);

-- Versions of registered models, as MLflow's clients make them.
ALTER TABLE model_versions
    ADD COLUMN given_source    text,               -- as it was given, where that is another way to say `source`
    ADD COLUMN logged_model_id uuid,               -- no foreign key: it outlives a logged model that was deleted
    ADD COLUMN run_link        text NOT NULL DEFAULT '';
CREATE INDEX model_versions_logged_model ON model_versions (workspace_id, logged_model_id)
    WHERE logged_model_id IS NOT NULL;
CREATE INDEX model_versions_source_path
    ON model_versions (workspace_id, left(coalesce(given_source, source), 128) COLLATE "C");

-- Traces: what happened inside of one request of an application. The id is as its client made it. Tags and the like are
-- in the row, not in rows of their own: there are some fifteen of them to a trace, and a trace is written by one statement.
CREATE TABLE traces (
    id                uuid PRIMARY KEY DEFAULT gen_random_uuid(), -- of its files
    workspace_id      integer NOT NULL REFERENCES workspaces,
    experiment_id     bigint NOT NULL REFERENCES experiments,
    trace_id          text COLLATE "C" NOT NULL,   -- tr-<32 hexadecimal digits>, as a rule
    request_ms        bigint NOT NULL,             -- when it began
    execution_ms      bigint,                      -- how long it took; NULL while it goes on
    state             text NOT NULL,               -- OK, ERROR, IN_PROGRESS, STATE_UNSPECIFIED
    told              boolean NOT NULL,            -- its client told the above; else it follows from its spans
    client_request_id text,
    request_preview   text,
    response_preview  text,
    tags              jsonb NOT NULL,
    metadata          jsonb NOT NULL,
    run_ids           text[] NOT NULL DEFAULT '{}', -- runs that it was linked to
    prompts           text[] NOT NULL DEFAULT '{}', -- versions of prompts that it was linked to, as name/version
    UNIQUE (workspace_id, trace_id),
    -- Whoever adds to them, and however often.
    CONSTRAINT traces_fit CHECK (octet_length(tags::text) <= 1048576 AND octet_length(metadata::text) <= 1048576)
);
CREATE INDEX traces_newest ON traces (workspace_id, experiment_id, request_ms DESC, trace_id);
CREATE INDEX traces_tags ON traces USING gin (tags jsonb_path_ops);
CREATE INDEX traces_metadata ON traces USING gin (metadata jsonb_path_ops);
CREATE INDEX traces_runs ON traces USING gin (run_ids);

-- The steps of a trace. A row each: one that comes again takes the place of the first, and searches look into them.
-- json and not jsonb, which forgets the order of keys and how numbers were written: it is what people log, and see again.
CREATE TABLE trace_spans (
    trace          uuid NOT NULL REFERENCES traces ON DELETE CASCADE,
    span_id        text COLLATE "C" NOT NULL,      -- hexadecimal
    parent_id      text,                           -- NULL: the root
    name           text NOT NULL,
    type           text NOT NULL,
    status         text NOT NULL,                  -- OK, ERROR, UNSET
    status_message text NOT NULL,
    start_ns       bigint NOT NULL,
    end_ns         bigint,
    attributes     json NOT NULL,
    events         json NOT NULL,
    links          json NOT NULL,
    PRIMARY KEY (trace, span_id)
);

-- What people and judges say of a trace.
CREATE TABLE trace_assessments (
    trace         uuid NOT NULL REFERENCES traces ON DELETE CASCADE,
    assessment_id text COLLATE "C" NOT NULL,
    kind          text NOT NULL,                   -- feedback, expectation, issue
    name          text NOT NULL,
    value         json NOT NULL,
    error         json,
    source_type   text NOT NULL,
    source_id     text NOT NULL,
    rationale     text,
    metadata      json NOT NULL,
    span_id       text,
    overrides     text,                            -- the assessment that this one is instead of
    valid         boolean NOT NULL,                -- not overridden
    created_ms    bigint NOT NULL,
    updated_ms    bigint NOT NULL,
    PRIMARY KEY (trace, assessment_id)
);

-- Between which times a chunk's points lie, which may come in another order than their steps: MLflow's clients read
-- histories by time. NULL where an earlier release wrote the chunk.
ALTER TABLE metric_chunks ADD COLUMN least_time bigint, ADD COLUMN greatest_time bigint;

-- What `penstock-server import` brought in: runs and logged models, each with what it is made of but for its files in one
-- transaction, and whether its files are here too.
CREATE TABLE imported (
    id           uuid PRIMARY KEY,                 -- of the run or the logged model, which may be gone since
    workspace_id integer NOT NULL REFERENCES workspaces,
    source       text NOT NULL,                    -- where it came from
    points       bigint NOT NULL,                  -- how many the source had
    files        integer NOT NULL DEFAULT 0,       -- the same
    whole        boolean NOT NULL DEFAULT false
);
