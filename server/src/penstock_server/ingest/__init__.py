"""From a writer's batch to COMMIT: buffer, pipelines, compactor. docs/architecture.md draws the path."""
