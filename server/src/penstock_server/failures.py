"""How a process of ours ends: exit codes, and words for what a person can put right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from penstock_server.app import NotDrainedError
from penstock_server.config import ConfigError
from penstock_server.data_dir import DataDirError
from penstock_server.model.errors import PenstockError
from penstock_server.ports import PortError
from penstock_server.postgres.embedded import EmbeddedError

log = structlog.get_logger(__name__)

OK = 0
FAILED = 1
USAGE = 2
BUG = 70
INTERRUPTED = 130

# What these say is meant for the person who starts the server. Anything else is a bug, told with its traceback.
_TOLD = (ConfigError, DataDirError, EmbeddedError, NotDrainedError, PenstockError, PortError)


def exit_code(work: Callable[[], None]) -> int:
    """Does the work of a process and returns its exit code; failures are logged."""
    try:
        work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        causes = list(_leaves(error))
        if not all(isinstance(cause, _TOLD) for cause in causes):
            log.critical("the server died of an error of its own", exc_info=error)
            return BUG
        for cause in causes:
            log.error(str(cause))  # noqa: TRY400  # the sentence is what helps; the traceback would hide it
        return USAGE if any(isinstance(cause, ConfigError) for cause in causes) else FAILED
    return OK


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for cause in error.exceptions:
            yield from _leaves(cause)
    else:
        yield error
