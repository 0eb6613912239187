"""The server's settings: where they come from, what they may be. The one place that reads the environment.

Flags go over `PENSTOCK_…` variables, these over a TOML file, this over the defaults. Settings are frozen
once made; whatever is wrong with them is told all at once.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import BeforeValidator, ByteSize, Field, PlainSerializer, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from penstock_server.model.artifacts import LocalRoot, S3Root, parse_root

PREFIX = "PENSTOCK_"
FILE_VARIABLE = "PENSTOCK_CONFIG"
MIB = 1024 * 1024

# What the embedded PostgreSQL has for us, and what one process holds beside its pool (ingest, LISTEN, readiness).
EMBEDDED_CONNECTIONS = 190
CONNECTIONS_BESIDE_POOL = 8

_S3_SETTINGS = ("s3_endpoint", "s3_region", "s3_addressing", "s3_encryption", "s3_kms_key", "s3_ca_bundle")

# A second for the writers to leave, one to commit what they sent, one to close the rest.
SHORTEST_DRAIN = 3


class ConfigError(Exception):
    """The settings cannot be used. `problems` has a sentence for each reason, all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def dial(self) -> Address:
        """What a client on this machine connects to: a wildcard is no destination."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104

    def overlaps(self, other: Address) -> bool:
        """Whether the two cannot be listened on at once."""
        hosts = {self.host, other.host}
        return self.port == other.port != 0 and (len(hosts) == 1 or bool(hosts & {"0.0.0.0", "::"}))  # noqa: S104


def _parse_address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    host, _, port = str(value).rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""  # an IPv6 address goes into brackets
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise PydanticCustomError("address", "must be host:port, such as 127.0.0.1:50051 or [::1]:50051")
    return Address(host, int(port))


_Address = Annotated[Address, BeforeValidator(_parse_address), PlainSerializer(str)]


class Settings(BaseSettings):
    """Everything that can be set. A field's description is its help on the command line."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    data_dir: Path = Field(Path(".penstock"), description="directory that holds what the server keeps")
    grpc_address: _Address = Field(Address("127.0.0.1", 50051), description="host:port of the gRPC services")
    http_address: _Address = Field(Address("127.0.0.1", 5000), description="host:port of /health, /ready, /metrics")
    database_url: SecretStr | None = Field(
        None,
        description="postgresql://… of a PostgreSQL 15 or later; better set by environment or file, since other "
        "users can read a command line (default: an embedded PostgreSQL under the data directory)",
    )
    database_connections: int = Field(10, ge=2, le=1000, description="most pooled database connections per process")
    workers: int = Field(1, ge=1, le=256, description="processes that share the two ports")
    log_format: Literal["json", "console"] | None = Field(
        None, description="json or console (default: console on a terminal, json elsewhere)"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning, error")
    ingest_buffer_bytes: ByteSize = Field(
        ByteSize(64 * MIB), ge=MIB, description="most bytes per process that are accepted and not yet committed"
    )
    max_message_bytes: ByteSize = Field(
        ByteSize(16 * MIB), ge=MIB, le=1024 * MIB, description="longest gRPC message, either way"
    )
    drain_seconds: float = Field(30, le=3600, description="longest time from SIGTERM to exit, 3 or more")
    artifacts_root: str | None = Field(
        None,
        description="directory or s3://bucket/prefix for artifacts (default: artifacts/ in the data directory)",
    )
    artifacts_mode: Literal["proxied", "direct"] = Field(
        "proxied", description="proxied: artifacts go through the server; direct: clients write to the store themselves"
    )
    artifacts_only: bool = Field(False, description="serve artifacts and nothing else")
    artifacts_resume_hours: float = Field(
        24, gt=0, le=24 * 30, description="how long an upload that broke off can be gone on with"
    )
    s3_endpoint: str | None = Field(None, description="http(s)://host:port of a store that speaks S3 (default: AWS)")
    s3_region: str | None = Field(None, description="region of the bucket (default: as AWS's tools find it)")
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="auto, path (host/bucket) or virtual (bucket.host)"
    )
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(
        None, description="AES256 (SSE-S3) or aws:kms (SSE-KMS) (default: as the bucket is set up)"
    )
    s3_kms_key: str | None = Field(None, description="key of SSE-KMS: an id, ARN or alias (default: the account's)")
    s3_ca_bundle: Path | None = Field(None, description="file of certificates to trust beside the system's")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is passed in and nothing else: `load` reads the other sources, so it can tell who said what."""
        return (init_settings,)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            try:
                parts = urlsplit(url.get_secret_value())
                known = parts.scheme in ("postgresql", "postgres") and parts.port != 0
            except ValueError:
                known = False
            if not known:
                raise PydanticCustomError("url", "must be a URL such as postgresql://user:password@host:5432/penstock")
        return url

    @field_validator("artifacts_root")
    @classmethod
    def _store(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            root = parse_root(text)
        except ValueError as error:
            raise PydanticCustomError("store", "{problem}", {"problem": str(error)}) from None
        if isinstance(root, S3Root):
            return root.uri()
        if root.windows and os.name != "nt":
            raise PydanticCustomError("store", "is a directory of Windows, and this machine has none")
        return root.uri() if root.windows else LocalRoot(Path(root.path).expanduser().absolute().as_posix()).uri()

    @field_validator("s3_endpoint")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
                raise PydanticCustomError("url", "must be http(s)://host:port, without user and query")
        return url

    @field_validator("drain_seconds")
    @classmethod
    def _long_enough(cls, seconds: float) -> float:
        if not seconds >= SHORTEST_DRAIN:
            raise PydanticCustomError(
                "drain",
                "must be at least {shortest}, for writers to leave and what they sent to be committed",
                {"shortest": SHORTEST_DRAIN},
            )
        return seconds

    def conflicts(self) -> list[str]:
        """What is wrong between fields that are each right."""
        problems = []
        if self.grpc_address.overlaps(self.http_address):
            problems.append(
                f"grpc_address and http_address: both are {self.http_address}; gRPC and HTTP need a port each"
            )
        if self.ingest_buffer_bytes < 4 * self.max_message_bytes:
            problems.append(
                f"ingest_buffer_bytes: is {self.ingest_buffer_bytes.human_readable()}; it must be at least four times "
                f"max_message_bytes ({self.max_message_bytes.human_readable()}), since one writer may fill a quarter"
            )
        if self.artifacts_only and self.database_url is None:
            problems.append(
                "artifacts_only: needs the database of the server that has the runs; set database_url to it"
            )
        if self.s3_kms_key is not None and self.s3_encryption != "aws:kms":
            problems.append("s3_kms_key: is for s3_encryption = aws:kms only; set that, or leave the key out")
        if not isinstance(self.store, S3Root):
            given = [name for name in _S3_SETTINGS if getattr(self, name) not in (None, "auto")]
            problems += [f"{name}: artifacts_root is no s3://bucket, so it would do nothing" for name in given]
        connections = self.workers * (self.database_connections + CONNECTIONS_BESIDE_POOL)
        if self.database_url is None and connections > EMBEDDED_CONNECTIONS:
            problems.append(
                f"workers and database_connections: {self.workers} processes would need up to {connections} "
                f"connections; the embedded PostgreSQL has {EMBEDDED_CONNECTIONS}: lower one of the two"
            )
        return problems

    @property
    def store(self) -> LocalRoot | S3Root:
        """Where artifacts are kept."""
        return parse_root(self.artifacts_root or (self.data_dir / "artifacts").as_uri())

    @property
    def database(self) -> str:
        """The database in words, without its password."""
        return "embedded PostgreSQL" if self.database_url is None else redacted(self.database_url.get_secret_value())


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid settings, and which source each came from ("flag", "PENSTOCK_WORKERS", a file, "default")."""

    settings: Settings
    sources: Mapping[str, str]

    def lines(self) -> list[str]:
        """One line a setting, fit for a log: without passwords."""
        shown = {name: getattr(self.settings, name) for name in Settings.model_fields}
        shown["database_url"] = self.settings.database
        shown["artifacts_root"] = self.settings.store.uri()
        shown |= {name: value.human_readable() for name, value in shown.items() if isinstance(value, ByteSize)}
        return [
            f"{name:<22} {'not set' if value is None else value}  ({self.sources[name]})"
            for name, value in shown.items()
        ]


def load(flags: Mapping[str, object], file: Path | None = None) -> Loaded:
    """The settings of this process. Raises ConfigError with all that is wrong."""
    file = file or (Path(named) if (named := os.environ.get(FILE_VARIABLE)) else None)
    problems = _misspelt_variables()
    from_file, file_problems = _read(file) if file else ({}, [])
    from_environment = EnvSettingsSource(Settings)()
    given = from_file | from_environment | dict(flags)
    sources = dict.fromkeys(Settings.model_fields, "default")
    sources |= dict.fromkeys(from_file, str(file))
    sources |= {name: PREFIX + name.upper() for name in from_environment}
    sources |= dict.fromkeys(flags, "flag")
    problems += file_problems

    try:
        settings = Settings(**given)
        problems += settings.conflicts()
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
        problems += [_sentence(e, sources) for e in errors]
        wrong = {e["loc"][0] for e in errors}
        problems += Settings(**{name: value for name, value in given.items() if name not in wrong}).conflicts()
    if problems:
        raise ConfigError(problems)
    return Loaded(settings, sources)


def redacted(url: str) -> str:
    """A database URL without its password, wherever in the URL that stands."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    query = [(key, "***" if "password" in key.lower() else value) for key, value in parse_qsl(parts.query)]
    netloc = f"{name}:***{at}{host}" if colon else parts.netloc
    return parts._replace(netloc=netloc, query=urlencode(query, safe="/*")).geturl()


def _read(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        return dict(_flat(tomllib.loads(file.read_text(encoding="utf-8")))), []
    except OSError as error:
        return {}, [f"{file}: cannot be read: {error.strerror}"]
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return {}, [f"{file}: is not TOML: {error}"]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`mode` of the table `[artifacts]` is artifacts_mode."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}_")
        else:
            yield prefix + key, value


def _misspelt_variables() -> list[str]:
    """Variables that are nearly settings. Others with our prefix belong to the client."""
    known = [PREFIX + name.upper() for name in Settings.model_fields] + [FILE_VARIABLE]
    return [
        f"{name}: is no setting; did you mean {close[0]}?"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
        if (close := difflib.get_close_matches(name, known, 1, cutoff=0.9))
    ]


def _sentence(error: ErrorDetails, sources: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, Settings.model_fields, 1)
        return f"{name}: is no setting" + (f"; did you mean {close[0]}?" if close else "") + f" ({sources[name]})"
    # A URL that is wrong may still have a right password in it.
    found = "" if name == "database_url" or "@" in str(error["input"]) else f", found {error['input']!r}"
    message = error["msg"].removeprefix("Input should be ")
    if message != error["msg"]:
        message = "must be " + message
    return f"{name}: {message[:1].lower()}{message[1:]}{found} ({sources[name]})"
