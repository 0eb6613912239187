-- The model registry. Whatever changes a model's rows locks the model's row first and, to write its events, the
-- workspace's history: so the ids of events are in the order in which they are committed.

CREATE TABLE registered_models (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id integer NOT NULL REFERENCES workspaces,
    name         text COLLATE "C" NOT NULL,
    description  text NOT NULL DEFAULT '',
    last_version integer NOT NULL DEFAULT 0,       -- the last number that was given
    created_by   text NOT NULL,
    created_ms   bigint NOT NULL,
    updated_ms   bigint NOT NULL,
    request_id   text,
    UNIQUE (workspace_id, name)
);
CREATE UNIQUE INDEX registered_models_request ON registered_models (workspace_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX registered_models_newest ON registered_models (workspace_id, updated_ms DESC, id DESC);

CREATE TABLE registered_model_tags (
    model_id     bigint NOT NULL REFERENCES registered_models ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    key          text NOT NULL,
    value        text NOT NULL,
    PRIMARY KEY (model_id, key)
);
CREATE INDEX registered_model_tags_search ON registered_model_tags (workspace_id, key, left(value, 128) COLLATE "C");

CREATE TABLE model_versions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id       bigint NOT NULL REFERENCES registered_models ON DELETE CASCADE,
    workspace_id   integer NOT NULL,
    version        integer NOT NULL,
    run_id         uuid,                           -- no foreign key: it outlives a run that was deleted by force
    path           text NOT NULL DEFAULT '',       -- in the run
    source         text NOT NULL,                  -- runs:/<run id>/<path>, or what was given
    status         smallint NOT NULL,              -- the numbers of the protocol: 1 pending, 2 ready, 3 failed
    status_message text NOT NULL DEFAULT '',
    stage          smallint NOT NULL DEFAULT 1,    -- the numbers of the protocol: 1 none … 4 archived
    description    text NOT NULL DEFAULT '',
    created_by     text NOT NULL,
    created_ms     bigint NOT NULL,
    updated_ms     bigint NOT NULL,
    request_id     text,
    UNIQUE (model_id, version)
);
CREATE UNIQUE INDEX model_versions_request ON model_versions (workspace_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX model_versions_newest ON model_versions (workspace_id, updated_ms DESC, id DESC);
CREATE INDEX model_versions_created ON model_versions (workspace_id, created_ms DESC, id DESC);
CREATE INDEX model_versions_run ON model_versions (workspace_id, run_id) WHERE run_id IS NOT NULL;
CREATE INDEX model_versions_stage ON model_versions (workspace_id, stage, updated_ms DESC, id DESC) WHERE stage <> 1;
CREATE INDEX model_versions_latest ON model_versions (model_id, stage, version DESC);
CREATE INDEX model_versions_source ON model_versions (workspace_id, left(source, 128) COLLATE "C");

CREATE TABLE model_version_tags (
    version_id   bigint NOT NULL REFERENCES model_versions ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    key          text NOT NULL,
    value        text NOT NULL,
    PRIMARY KEY (version_id, key)
);
CREATE INDEX model_version_tags_search ON model_version_tags (workspace_id, key, left(value, 128) COLLATE "C");

CREATE TABLE model_aliases (
    model_id     bigint NOT NULL REFERENCES registered_models ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    alias        text COLLATE "C" NOT NULL,
    version_id   bigint NOT NULL REFERENCES model_versions ON DELETE CASCADE,
    moved_by     text NOT NULL,
    moved_ms     bigint NOT NULL,
    PRIMARY KEY (model_id, alias)
);
CREATE INDEX model_aliases_version ON model_aliases (version_id);
CREATE INDEX model_aliases_search ON model_aliases (workspace_id, alias);

-- Nothing gets to a guarded alias or stage but by its gates and approvals.
CREATE TABLE promotion_policies (
    model_id     bigint NOT NULL REFERENCES registered_models ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    target       text COLLATE "C" NOT NULL,        -- @alias, or a stage's name
    gates        text[] NOT NULL,
    approvals    integer NOT NULL,
    PRIMARY KEY (model_id, target)
);

CREATE TABLE promotions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id       bigint NOT NULL REFERENCES registered_models ON DELETE CASCADE,
    workspace_id   integer NOT NULL,
    version        integer NOT NULL,               -- no reference: it stays, void, when the version is deleted
    target         text COLLATE "C" NOT NULL,      -- @alias, or a stage's name
    gates          text[] NOT NULL,                -- beside those of the policy
    archive_others boolean NOT NULL,
    state          smallint NOT NULL DEFAULT 1,    -- the numbers of the protocol: 1 pending … 4 void
    requested_by   text NOT NULL,
    comment        text NOT NULL,
    created_ms     bigint NOT NULL,
    settled_ms     bigint
);
CREATE UNIQUE INDEX promotions_pending ON promotions (model_id, version, target) WHERE state = 1;
CREATE INDEX promotions_model ON promotions (workspace_id, model_id, id);

CREATE TABLE promotion_verdicts (
    promotion_id bigint NOT NULL REFERENCES promotions ON DELETE CASCADE,
    workspace_id integer NOT NULL,
    given_by     text NOT NULL,
    approved     boolean NOT NULL,
    comment      text NOT NULL,
    given_ms     bigint NOT NULL,
    PRIMARY KEY (promotion_id, given_by)
);

-- What has happened. Rows are only added, and refer to nothing, so that they outlive what they are about.
CREATE TABLE registry_events (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id integer NOT NULL,
    model_id     bigint NOT NULL,
    kind         smallint NOT NULL,                -- the numbers of the protocol
    name         text COLLATE "C" NOT NULL,        -- the model's, at that time
    version      integer NOT NULL,                 -- 0: of the model as a whole
    key          text NOT NULL,
    before       jsonb NOT NULL,                   -- texts by name
    after        jsonb NOT NULL,
    made_by      text NOT NULL,
    at_ms        bigint NOT NULL,
    request_id   text NOT NULL,
    bytes        integer GENERATED ALWAYS AS (octet_length(before::text) + octet_length(after::text)) STORED
);
CREATE INDEX registry_events_workspace ON registry_events (workspace_id, id);
CREATE INDEX registry_events_model ON registry_events (model_id, id);
CREATE INDEX registry_events_name ON registry_events (workspace_id, name, id);
CREATE INDEX registry_events_key ON registry_events (model_id, key, id);
-- Of a model whose tags are set all day, the rest is found at once: what is no change of a tag, …
CREATE INDEX registry_events_rare ON registry_events (model_id, id) WHERE kind NOT IN (5, 6, 10, 11);
-- … what has left a stage, …
CREATE INDEX registry_events_left ON registry_events (model_id, (before->>'stage'), id) WHERE kind IN (9, 12);
-- … and which models were ever called so.
CREATE INDEX registry_events_called ON registry_events (workspace_id, (after->>'name'), model_id) WHERE kind IN (1, 2);
CREATE FUNCTION penstock_events_stay() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'events of the registry are never changed'; END$$;
CREATE TRIGGER registry_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON registry_events EXECUTE FUNCTION penstock_events_stay();
