"""The model registry: registered models, their versions, and the stages and aliases that say which is which."""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NewType

from penstock_server.model.access import WorkspaceId
from penstock_server.model.artifacts import check_directory
from penstock_server.model.errors import InvalidArgument
from penstock_server.model.limits import check_text
from penstock_server.model.runs import RunId, format_run_id, parse_run_id

ModelId = NewType("ModelId", int)

NAME_LIMIT = 256
ALIAS_LIMIT = 255
DESCRIPTION_LIMIT = 5_000
SOURCE_LIMIT = 5_000
LINK_LIMIT = 1_000
MESSAGE_LIMIT = 1_000
TAG_KEY_LIMIT = 250
TAG_VALUE_LIMIT = 100_000
# A model with its newest version in each stage goes into a message of 1 MiB with all that these limits let them have;
# a test makes such a one.
TAGS_AT_ONCE = 100
TAGS_LIMIT = 1_000
TAGS_BYTES = 128_000
ALIASES_LIMIT = 200
ALIASES_BYTES = 20_000
POLICIES_LIMIT = 100
POLICIES_BYTES = 64_000
VERSION_MAX = 2**31 - 1

LATEST = "latest"
_ALIAS = re.compile(r"[\w-]+")
_LIKE_A_VERSION = re.compile(r"v?\d+", re.IGNORECASE)


class Stage(enum.IntEnum):
    """Where a version stands on its way to users; the numbers of the protocol and of the tables."""

    NONE = 1
    STAGING = 2
    PRODUCTION = 3
    ARCHIVED = 4

    @property
    def label(self) -> str:
        """As people write it: None, Staging, Production, Archived."""
        return self.name.capitalize()

    @classmethod
    def called(cls, text: str) -> Stage | None:
        """The stage of that name, in any case; None when there is none."""
        return cls.__members__.get(text.upper())


class VersionStatus(enum.IntEnum):
    """Whether the bytes of a version are there; the numbers of the protocol and of the tables."""

    PENDING = 1
    READY = 2
    FAILED = 3

    @property
    def label(self) -> str:
        """As people write it: pending, ready, failed."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model, and where it belongs."""

    workspace_id: WorkspaceId
    model_id: ModelId
    name: str


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model. Times are ms since 1970 UTC.

    `run_id` and `logged_model_id` are what it comes from; where its bytes are is said by `source`, and by `path` within
    that where it is of a run or a logged model. `given_source` is how the source was given; empty: just so.
    `source_problem`: why its bytes cannot be had, in a few words; empty as far as is known.
    """

    id: int
    model_id: ModelId
    name: str
    version: int
    run_id: RunId | None
    path: str
    source: str
    status: VersionStatus
    status_message: str
    stage: Stage
    description: str
    created_by: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)
    source_problem: str = ""
    given_source: str = ""
    logged_model_id: uuid.UUID | None = None
    run_link: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """What guards an alias or a stage: `target` is @alias or a stage's label."""

    target: str
    gates: tuple[str, ...]
    approvals: int


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A named line of versions. Times are ms since 1970 UTC."""

    id: ModelId
    name: str
    description: str
    last_version: int
    created_by: str
    created_ms: int
    updated_ms: int
    tags: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    latest: list[ModelVersion] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a caller says of a version to be made; see CreateModelVersionRequest.

    Without a `source` its bytes are at `path` of the logged model, if one is told, or else of the run. `as_told`: the
    run and its artifacts are not looked for.
    """

    name: str
    run_id: RunId | None = None
    path: str = ""
    source: str = ""
    status: VersionStatus = VersionStatus.READY
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    request_id: str = ""
    create_model: bool = False
    given_source: str = ""
    logged_model_id: uuid.UUID | None = None
    run_link: str = ""
    as_told: bool = False


class EventKind(enum.IntEnum):
    """What has happened; the numbers of the protocol, which says what `key`, `before` and `after` are.

    Unspecified is what a newer release has written, beside which this one runs.
    """

    UNSPECIFIED = 0
    MODEL_CREATED = 1
    MODEL_RENAMED = 2
    MODEL_UPDATED = 3
    MODEL_DELETED = 4
    MODEL_TAG_SET = 5
    MODEL_TAG_DELETED = 6
    VERSION_CREATED = 7
    VERSION_UPDATED = 8
    VERSION_DELETED = 9
    VERSION_TAG_SET = 10
    VERSION_TAG_DELETED = 11
    STAGE_CHANGED = 12
    ALIAS_SET = 13
    ALIAS_DELETED = 14
    POLICY_SET = 15
    POLICY_DELETED = 16
    PROMOTION_REQUESTED = 17
    PROMOTION_APPROVED = 18
    PROMOTION_REJECTED = 19
    PROMOTED = 20
    SOURCE_DELETED = 21


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that a transaction does to a model, for its history."""

    kind: EventKind
    version: int = 0
    key: str = ""
    before: Mapping[str, str] = field(default_factory=dict)
    after: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened. `by` is who did it, `at_ms` when, `request_id` in which request."""

    id: int
    name: str
    what: Happening
    by: str
    at_ms: int
    request_id: str


@dataclass(frozen=True, slots=True)
class Ref:
    """What names a version: of `version`, `alias` and `stage` one; with none of them, the newest is meant."""

    name: str
    version: int | None = None
    alias: str | None = None
    stage: Stage | None = None


def parse_ref(text: str, where: str = "ref") -> Ref:
    """`models:/name/3`, `…/Production`, `…/latest`, `…@alias`; also without `models:/`. Raises InvalidArgument."""
    check_text(where, text, NAME_LIMIT + ALIAS_LIMIT + len("models://"), empty=False)
    if is_of_run(text):
        raise InvalidArgument(where, f"{text[:80]!r} is of a run, and names no version of a model")
    name, slash, which = text.removeprefix("models:/").partition("/")
    if slash:
        check_name(name, where)
        if which.isascii() and which.isdecimal() and 1 <= int(which) <= VERSION_MAX:
            return Ref(name, version=int(which))
        if which.lower() == LATEST:
            return Ref(name)
        if (stage := Stage.called(which)) is not None:
            return Ref(name, stage=stage)
    else:
        name, at, alias = name.rpartition("@")
        if at:
            return Ref(check_name(name, where), alias=check_alias(alias, where))
    raise InvalidArgument(
        where,
        f"{text[:80]!r} names no version: write models:/name/3, models:/name/Production, models:/name/latest or "
        "models:/name@alias",
    )


_RUNS = "runs:/"
_LOGGED_MODEL = re.compile(r"models:/m-([0-9a-f]{32})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# And what ends a line, or turns the direction of writing: a name is shown in lists and sentences.
_UNSHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")


def run_source(run_id: RunId, path: str) -> str:
    """The source of a version whose bytes are a run's, at a path or (empty) all it has."""
    return f"{_RUNS}{format_run_id(run_id)}" + (f"/{path}" if path else "")


def is_of_run(source: str) -> bool:
    """Whether a source says that the bytes are a run's."""
    return source.startswith(_RUNS)


def parse_run_source(source: str, where: str = "source") -> tuple[RunId, str]:
    """The run and the path of `runs:/<run id>/<path>`. Raises InvalidArgument."""
    run_id, _, path = source.removeprefix(_RUNS).partition("/")
    return parse_run_id(run_id, where), check_directory(path, where)


def logged_model_source(logged_model_id: uuid.UUID) -> str:
    """The source of a version whose bytes are those of a logged model."""
    return f"models:/m-{logged_model_id.hex}"


def parse_logged_model_source(source: str) -> uuid.UUID | None:
    """The logged model of `models:/m-<id>`; None when the source is something else."""
    found = _LOGGED_MODEL.fullmatch(source)
    return uuid.UUID(found[1]) if found else None


def check_source(source: str, where: str = "source") -> str:
    """Where bytes are, as text. Raises InvalidArgument."""
    check_text(where, source, SOURCE_LIMIT, empty=False)
    if not source.strip():
        raise InvalidArgument(where, "must not be blank")
    if found := _CONTROL.search(source):
        raise InvalidArgument(where, f"has a control character at position {found.start()}")
    return source


def check_name(name: str, where: str = "name") -> str:
    """A model's name: 1 to 256 characters, no /, no : and no control character among them. Raises InvalidArgument."""
    check_text(where, name, NAME_LIMIT, empty=False)
    if not name.strip():
        raise InvalidArgument(where, "must not be blank")
    if found := _UNSHOWN.search(name):
        raise InvalidArgument(where, f"{name!r} has a control character at position {found.start()}")
    if name in (".", ".."):
        raise InvalidArgument(where, f"{name!r} means a directory wherever a name becomes that of a file")
    for character in "/:":
        if character in name:
            raise InvalidArgument(
                where, f"{name!r} has a {character} in it, which references such as models:/name/3 need"
            )
    return name


def check_version(version: int, where: str = "version") -> int:
    """A version's number. Raises InvalidArgument."""
    if not 1 <= version <= VERSION_MAX:
        raise InvalidArgument(where, f"{version} is no version's number; they begin with 1")
    return version


def check_alias(alias: str, where: str = "alias") -> str:
    """An alias, which must not look like a version or `latest`. It may be called as a stage. Raises InvalidArgument."""
    check_alias_form(alias, where)
    if alias.lower() == LATEST or _LIKE_A_VERSION.fullmatch(alias):
        raise InvalidArgument(where, f"{alias!r} would be taken for a version; take another alias")
    return alias


def check_alias_form(alias: str, where: str = "alias") -> str:
    """What is looked for among aliases. Raises InvalidArgument."""
    check_text(where, alias, ALIAS_LIMIT, empty=False)
    if not _ALIAS.fullmatch(alias):
        raise InvalidArgument(where, f"{alias!r} is no alias: letters, digits, _ and - make one")
    return alias


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Tags of a model or version that are to be set at once. Raises InvalidArgument."""
    check_keys(tags)
    for key, value in tags.items():
        check_text(f"value of tag {key!r}", value, TAG_VALUE_LIMIT)
    check_all_tags(tags)
    return tags


def check_keys(keys: Collection[str]) -> None:
    """Keys of tags in one call. Raises InvalidArgument."""
    if len(keys) > TAGS_AT_ONCE:
        raise InvalidArgument("tags", f"{len(keys):,} are too many at once; the limit is {TAGS_AT_ONCE}")
    for key in keys:
        check_text("tag key", key, TAG_KEY_LIMIT, empty=False)


def check_all_tags(tags: Mapping[str, str], beside: int = 0, beside_bytes: int = 0) -> None:
    """All tags that a model or version is to have: these, and so many that take so many bytes.

    Raises InvalidArgument.
    """
    size = beside_bytes + sum(len(key.encode()) + len(value.encode()) for key, value in tags.items())
    _check_room("tags", beside + len(tags), TAGS_LIMIT, size, TAGS_BYTES)


def check_all_aliases(count: int, size: int) -> None:
    """How many aliases a model is to have, and the bytes of them. Raises InvalidArgument."""
    _check_room("aliases", count, ALIASES_LIMIT, size, ALIASES_BYTES)


def check_all_policies(count: int, size: int) -> None:
    """How many policies a model is to have, and the bytes of their gates. Raises InvalidArgument."""
    _check_room("policies", count, POLICIES_LIMIT, size, POLICIES_BYTES)


def _check_room(what: str, count: int, most: int, size: int, most_bytes: int) -> None:
    if count > most:
        raise InvalidArgument(what, f"it would have {count:,} of them; the limit is {most:,}")
    if size > most_bytes:
        raise InvalidArgument(what, f"they would have {size:,} bytes together; the limit is {most_bytes:,}")
