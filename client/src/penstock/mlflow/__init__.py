"""MLflow's plugin: with `penstock://host:50051` as its tracking URI, MLflow speaks gRPC with a Penstock server.

Only MLflow loads this, by the entry points of the distribution; nothing else of the client knows it.
"""
