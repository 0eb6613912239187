"""MLflow's REST API, translated to core: what stock MLflow clients send, and what they expect to be answered.

Of HTTP nothing is known here: a request is a method, a path, a query and a body. http/mlflow.py brings them from the
network, rpc/mlflow.py from the plugin, which speaks the same API over gRPC. docs/mlflow.md lists the endpoints.
"""

# The version of MLflow whose API this is. Clients ask for it, and use what they think that version has.
SPEAKS = "3.17.2"
