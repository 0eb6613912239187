"""The catalogue of what the server measures of itself. Served at /metrics; docs/operating.md explains each.

Every queue has its depth here, every refusal its count, every wait its histogram.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

ingest_points = Counter("penstock_ingest_points", "Points committed.")
ingest_batches = Counter(
    "penstock_ingest_batches", "Batches by outcome.", ["outcome"]
)  # committed, duplicate, rejected, lost_race
ingest_lost_records = Counter("penstock_ingest_lost_records", "Records that their writers had no more.")
ingest_flushes = Counter(
    "penstock_ingest_flushes", "Flush transactions by outcome.", ["outcome"]
)  # committed, retried, held
ingest_flush_seconds = Histogram("penstock_ingest_flush_seconds", "One flush transaction.", buckets=_SECONDS)
ingest_flush_bytes = Histogram(
    "penstock_ingest_flush_bytes", "Bytes of records in one flush.", buckets=[4**n for n in range(5, 14)]
)
ingest_buffer_bytes = Gauge("penstock_ingest_buffer_bytes", "Accepted, not yet committed.", multiprocess_mode="livesum")
ingest_streams = Gauge("penstock_ingest_streams", "Open writers' streams.", multiprocess_mode="livesum")

compactions = Counter("penstock_compactions", "Compactions by outcome.", ["outcome"])  # done, failed
compaction_seconds = Histogram("penstock_compaction_seconds", "One compaction of one run.", buckets=_SECONDS)
compaction_points = Counter("penstock_compaction_points", "Points moved from level 0 to level 1.")

artifact_bytes = Counter("penstock_artifact_bytes", "Bytes of artifacts through this server.", ["direction"])  # in, out
artifact_uploads = Counter(
    "penstock_artifact_uploads", "Uploads by outcome.", ["outcome"]
)  # stored, unchanged, mismatch, refused, broken
artifact_buffer_bytes = Gauge(
    "penstock_artifact_buffer_bytes", "Parts being gathered or stored.", multiprocess_mode="livesum"
)
artifact_held_seconds = Counter(
    "penstock_artifact_held_seconds", "How long bytes of artifacts waited because metrics go first, of all streams."
)
artifact_store_up = Gauge(
    "penstock_artifact_store_up", "1 while the artifacts' store works, else 0.", multiprocess_mode="livemin"
)
artifact_removals = Counter(
    "penstock_artifact_removals", "What was removed from the store.", ["kind"]
)  # known: replaced, deleted, broken off; stray: an upload that only the store knew

requests = Counter("penstock_requests", "Calls by method and status.", ["method", "status"])
request_seconds = Histogram("penstock_request_seconds", "Unary calls.", ["method"], buckets=_SECONDS)
