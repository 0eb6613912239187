"""The Penstock server: experiment tracking over gRPC, on PostgreSQL."""
