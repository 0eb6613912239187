-- What did not arrive: records that writers refused and records that they lost, on the run as on the writer. Both
-- change in one transaction, so that reading a run adds nothing up. Servers of the release before know neither column
-- of a run; what they are told meanwhile is on the writer alone.

ALTER TABLE writers ADD COLUMN lost bigint NOT NULL DEFAULT 0;       -- numbered, and not there when they were to be sent
ALTER TABLE runs ADD COLUMN refused_records bigint NOT NULL DEFAULT 0,
    ADD COLUMN lost_records bigint NOT NULL DEFAULT 0,
    ADD COLUMN resumed_ms bigint,                                    -- when a writer went on with it, by its clock
    ADD COLUMN resumed_by uuid;                                      -- that writer
UPDATE runs r SET refused_records = w.refused
  FROM (SELECT run_id, least(sum(refused), 9223372036854775807)::bigint AS refused FROM writers WHERE refused > 0 GROUP BY run_id) w
 WHERE r.id = w.run_id;
