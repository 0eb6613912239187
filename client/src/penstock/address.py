"""Where the server is, and channels to it."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import grpc
import grpc.aio
import grpc.experimental

from penstock import origin
from penstock.names import KEY_LIMIT, fit

DEFAULT_URL = "localhost:50051"
DEFAULT_WORKSPACE = "default"
_DEFAULT_PORT = 50051
_TLS = ("penstocks", "https", "grpcs")
_MESSAGE_LIMIT = 64 << 20

# Not repeated by themselves: a second call would answer otherwise than the first.
_ONCE = [
    ("ExperimentService", "DeleteExperimentTags"),
    ("ExperimentService", "DeleteExperiment"),
    ("ExperimentService", "RestoreExperiment"),
    ("RunService", "DeleteRunTags"),
    ("ArtifactService", "DeleteArtifact"),
    ("ArtifactService", "CompleteUpload"),
    *(
        ("RegistryService", method)
        for method in (
            "UpdateRegisteredModel",
            "DeleteRegisteredModel",
            "DeleteRegisteredModelTags",
            "DeleteModelVersion",
            "DeleteModelVersionTags",
            "SetAlias",
            "DeleteAlias",
            "Promote",
            "DeletePromotionPolicy",
            "Approve",
            "Reject",
        )
    ),
    # Their bytes would be kept in memory for it.
    ("ArtifactService", "UploadArtifact"),
    ("ArtifactService", "UploadArtifacts"),
    ("ArtifactService", "DownloadArtifact"),
]
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": f"penstock.v1.{name}"}
                    for name in (
                        "ExperimentService",
                        "RunService",
                        "MetricService",
                        "ArtifactService",
                        "RegistryService",
                    )
                ],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            {"name": [{"service": f"penstock.v1.{service}", "method": method} for service, method in _ONCE]},
        ]
    }
)

_COMMON: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Connections of its own: those of another channel may be from before a fork.
    ("grpc.use_local_subchannel_pool", 1),
    # Whoever only listens, as in a watch, notices no other way that the server's machine is gone.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]
_CALLS = [*_COMMON, ("grpc.service_config", _SERVICE_CONFIG)]
# An answer in pieces needs no thread of its own then.
_THREADLESS = [*_CALLS, (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
_STREAMS = [*_COMMON, ("grpc.enable_retries", 0)]


# It may ask a directory server, and every call wants to know.
_login = functools.cache(origin.login)

# In metadata a percent sign begins a byte, as in URLs.
_PRINTABLE = "".join(chr(number) for number in range(0x20, 0x7F) if chr(number) != "%")


@dataclass(frozen=True, slots=True)
class Address:
    """A server: `target` as gRPC takes it, whether by TLS, and the workspace to work in."""

    target: str
    tls: bool
    workspace: str

    @property
    def metadata(self) -> Sequence[tuple[str, str]]:
        """What every call carries."""
        told = [("penstock-user", name)] if (name := quote(user(), safe=_PRINTABLE)) else []
        return [("penstock-workspace", self.workspace), *told] if self.workspace != DEFAULT_WORKSPACE else told

    @property
    def url(self) -> str:
        """As `parse_address` takes it."""
        return self.target if self.target.startswith("unix:") else f"grpc{'s' if self.tls else ''}://{self.target}"

    def channel(self, *, threadless: bool = False) -> grpc.Channel:
        """For calls, `threadless` for one that may have to be made when no thread can be started any more.

        Nothing is connected before the first.
        """
        options = _THREADLESS if threadless else _CALLS
        if self.tls:
            return grpc.secure_channel(self.target, grpc.ssl_channel_credentials(), options=options)
        return grpc.insecure_channel(self.target, options=options)

    def async_channel(self) -> grpc.aio.Channel:
        """For calls from the running event loop."""
        if self.tls:
            return grpc.aio.secure_channel(self.target, grpc.ssl_channel_credentials(), options=_CALLS)
        return grpc.aio.insecure_channel(self.target, options=_CALLS)

    def stream_channel(self) -> grpc.Channel:
        """For one writer's stream."""
        if self.tls:
            return grpc.secure_channel(self.target, grpc.ssl_channel_credentials(), options=_STREAMS)
        return grpc.insecure_channel(self.target, options=_STREAMS)


def parse_address(url: str | None = None, workspace: str | None = None) -> Address:
    """`host:port`, or a URL with penstock://, http:// or grpc://; for TLS with penstocks://, https:// or grpcs://.

    None: PENSTOCK_URL, or else localhost:50051; the workspace PENSTOCK_WORKSPACE, or else `default`.
    Raises ValueError.
    """
    text = (url if url is not None else os.environ.get("PENSTOCK_URL") or DEFAULT_URL).strip()
    workspace = workspace or os.environ.get("PENSTOCK_WORKSPACE") or DEFAULT_WORKSPACE
    if not (workspace.isascii() and workspace.isprintable()):
        raise ValueError(f"{workspace!r} is no name of a workspace: it must be printable ASCII")
    if text.startswith("unix:"):
        return Address(text, tls=False, workspace=workspace)
    parts = urlsplit(text if "://" in text else f"penstock://{text}")
    try:
        port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else _DEFAULT_PORT
    except ValueError:
        port = 0
    if parts.scheme not in ("penstock", "http", "grpc", *_TLS) or not parts.hostname or not port:
        raise ValueError(f"{text!r} is no address of a server; write it as host:port or https://host:port")
    if parts.path not in ("", "/") or parts.query:
        raise ValueError(f"{text!r} has more than an address; write it as host:port or https://host:port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Address(f"{host}:{port}", tls=parts.scheme in _TLS, workspace=workspace)


def artifacts_address(address: Address, url: str | None = None) -> Address:
    """Where the artifacts of the runs at `address` are: at `url`, or PENSTOCK_ARTIFACTS_URL, or else there, too.

    Raises ValueError.
    """
    url = url if url is not None else os.environ.get("PENSTOCK_ARTIFACTS_URL") or None
    return address if url is None else parse_address(url, address.workspace)


def user() -> str:
    """PENSTOCK_USER, or else how the system calls who we are: who does it, in the registry's history."""
    told = os.environ.get("PENSTOCK_USER", "").strip() or _login()
    return "".join(each for each in fit(told, KEY_LIMIT) if each.isprintable())


def spool_dir() -> str | None:
    """PENSTOCK_SPOOL_DIR: where what is logged is kept until it is sent. None: where the system keeps such things."""
    return os.environ.get("PENSTOCK_SPOOL_DIR") or None


def mode() -> str | None:
    """PENSTOCK_MODE: `online` or `offline`, not checked. None: it is not set."""
    return os.environ.get("PENSTOCK_MODE") or None


def state_home() -> str | None:
    """Where the system lets programs keep the state of a user: XDG_STATE_HOME, or LOCALAPPDATA on Windows."""
    return os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_STATE_HOME") or None
