-- Artifacts: the files of runs, and of what else has some (its owner). A row of `artifacts` says what is to be seen; a row of `artifact_blobs` stands for each
-- object or file in the store from before its first byte is written until after its last is removed, so that whatever
-- a crash leaves in the store is known here.

CREATE TABLE artifact_blobs (
    id            uuid PRIMARY KEY,                -- of the upload, too
    workspace_id  integer NOT NULL,
    experiment_id bigint NOT NULL,
    owner_id      uuid NOT NULL,                   -- no foreign key: it outlives its owner until it is removed
    path          text COLLATE "C" NOT NULL,
    key           text NOT NULL UNIQUE,            -- in the store, below its root
    state         smallint NOT NULL DEFAULT 1,     -- 1 being written, 2 an artifact, 3 to be removed
    attempt       integer NOT NULL DEFAULT 1,      -- one more for each stream that goes on with it; the last may write
    token         text,                            -- what the store calls the upload; NULL before its first part
    size          bigint,                          -- as told at the beginning; NULL where it was not
    sha256        bytea,
    media_type    text NOT NULL,
    part_bytes    integer NOT NULL,
    live          boolean NOT NULL DEFAULT true,   -- somebody writes it, unless the last sign of life is long ago
    touched_ms    bigint NOT NULL,                 -- the last sign of life; when it is to be removed, from when on
    created_ms    bigint NOT NULL
);
CREATE INDEX artifact_blobs_owner ON artifact_blobs (owner_id, path);
CREATE INDEX artifact_blobs_due ON artifact_blobs (touched_ms) WHERE state <> 2;

-- Parts that are in the store. They go with the upload's end.
CREATE TABLE artifact_parts (
    blob_id       uuid NOT NULL REFERENCES artifact_blobs ON DELETE CASCADE,
    number        integer NOT NULL,                -- from 1
    size          bigint NOT NULL,
    etag          text NOT NULL,                   -- as the store answered
    prefix_sha256 bytea,                           -- of the file up to the end of this part; NULL: not known
    PRIMARY KEY (blob_id, number)
);

CREATE TABLE artifacts (
    owner_id      uuid NOT NULL,                   -- in one of several tables
    path          text COLLATE "C" NOT NULL,       -- `/` sorts before what stands in names: a directory is a range
    workspace_id  integer NOT NULL,
    experiment_id bigint NOT NULL,
    blob_id       uuid NOT NULL,                   -- no foreign key: for each blob that goes, all artifacts would be read
    size          bigint NOT NULL,
    sha256        bytea NOT NULL,
    media_type    text NOT NULL,
    updated_ms    bigint NOT NULL,
    PRIMARY KEY (owner_id, path)
);

-- What the store that they are in is known by: it has this as an object.
CREATE TABLE artifact_store (
    mark   text NOT NULL,
    placed boolean NOT NULL
);
INSERT INTO artifact_store VALUES (gen_random_uuid()::text, false);

-- Deleted for good: `gc` is removing it, and it cannot be restored.
ALTER TABLE runs ADD COLUMN removing boolean NOT NULL DEFAULT false;

-- What `gc` has removed, or is about to. No run is made with such an id: what a late spool still has of one is not all,
-- and servers may know its metrics by ids that would be others'.
CREATE TABLE removed_runs (
    id         uuid PRIMARY KEY,
    removed_ms bigint NOT NULL
);
