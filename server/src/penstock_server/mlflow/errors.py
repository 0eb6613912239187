"""How errors are told to MLflow's clients: the one table, and the shape of the answer.

A client acts on `error_code`; it asks again, for minutes, on 429 and on 500 and above.
"""

from __future__ import annotations

from penstock_server.model import errors
from penstock_server.model.errors import PenstockError

# MLflow's names for what can go wrong, and the HTTP status of each.
STATUS = {
    "INVALID_PARAMETER_VALUE": 400,
    "RESOURCE_ALREADY_EXISTS": 400,
    "INVALID_STATE": 400,  # MLflow answers 500, for which its own clients would ask again for minutes
    "BAD_REQUEST": 400,
    "PERMISSION_DENIED": 403,
    "RESOURCE_DOES_NOT_EXIST": 404,
    "ENDPOINT_NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
}

CODE: dict[type[PenstockError], str] = {
    errors.InvalidArgument: "INVALID_PARAMETER_VALUE",
    errors.InvalidFilter: "INVALID_PARAMETER_VALUE",
    errors.InvalidPageToken: "INVALID_PARAMETER_VALUE",
    errors.ContentMismatch: "INVALID_PARAMETER_VALUE",
    errors.NotFound: "RESOURCE_DOES_NOT_EXIST",
    errors.AlreadyExists: "RESOURCE_ALREADY_EXISTS",
    errors.ParamChanged: "INVALID_PARAMETER_VALUE",
    errors.FailedPrecondition: "INVALID_PARAMETER_VALUE",
    errors.NotActive: "INVALID_PARAMETER_VALUE",
    errors.AliasMoved: "RESOURCE_CONFLICT",
    errors.Guarded: "PERMISSION_DENIED",
    errors.StoreRefused: "INVALID_STATE",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.SequenceGap: "INTERNAL_ERROR",
    errors.Fenced: "RESOURCE_CONFLICT",
    errors.Changed: "RESOURCE_CONFLICT",
    errors.UploadGone: "RESOURCE_CONFLICT",
    errors.Retryable: "TEMPORARILY_UNAVAILABLE",
    errors.Busy: "REQUEST_LIMIT_EXCEEDED",
    errors.StoreFull: "TEMPORARILY_UNAVAILABLE",
    errors.Unavailable: "TEMPORARILY_UNAVAILABLE",
}


class MlflowError(Exception):
    """An answer that only this door gives, in MLflow's own words. `code` is one of STATUS."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> MlflowError:
    """The request can never succeed as it is."""
    return MlflowError("INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> MlflowError:
    """There is no such thing."""
    return MlflowError("RESOURCE_DOES_NOT_EXIST", message)


def code(error: PenstockError | MlflowError) -> str:
    """MLflow's name for it."""
    return error.code if isinstance(error, MlflowError) else CODE[type(error)]


def message(error: PenstockError | MlflowError) -> str:
    """What is told of it; in MLflow's words where clients look at them."""
    match error:
        case errors.NotFound(kind="run", key=key):
            return f"Run with id={key} not found"
        case errors.NotFound(kind="experiment", key=key):
            return f"No Experiment with id={key} exists"
        case errors.NotFound(kind="logged model", key=key):
            return f"Logged model with ID '{key}' not found."
        case errors.NotFound(kind="registered model", key=key):
            return f"Registered Model with name={key} not found"
        case errors.NotFound(kind="model version", key=str(key)):
            name, _, version = key.rpartition("/")
            return f"Model Version (name={name}, version={version}) not found"
        case errors.AlreadyExists(kind="registered model", key=key):
            return f"Registered Model (name={key}) already exists."
        case errors.NotFound(kind="tag", key=key):
            return f"No tag with name: {key}"
        case errors.NotFound(kind="trace", key=key):
            return f"Trace with ID '{key}' not found."
        case errors.NotFound(kind="trace tag", key=key):
            return f"No trace tag with key '{key}'"
        case errors.NotFound(kind="assessment", key=key):
            return f"Assessment with ID '{key}' not found"
        case errors.NotActive(kind="run" | "experiment" as kind, key=key):
            return f"The {kind} {key} must be in the 'active' state. Current state is deleted."
        case errors.ParamChanged():
            return (
                f"Changing param values is not allowed. Param with key='{error.key}' was already logged with "
                f"value='{error.old}'. Attempted logging new value '{error.new}'."
            )
    return str(error)
