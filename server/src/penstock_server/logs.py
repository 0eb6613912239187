"""How the server logs: structlog, one event a line, on stderr; libraries' records in the same form."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

Format = Literal["json", "console"]


def configure(form: Format | None, level: str) -> None:
    """Sets logging up for this process. Without `form`: console on a terminal, else json."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    rendering: list[structlog.types.Processor]
    if for_people(form):
        rendering = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)
    # Ours at the level asked for; what libraries say about themselves only when it is a warning.
    logging.getLogger("penstock_server").setLevel(level.upper())
    # Its pool tells each failed connection with a traceback; that the database is away, readiness tells once.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)


def for_people(form: Format | None) -> bool:
    """Whether what we print is read by a person rather than by a program."""
    return form == "console" or (form is None and sys.stderr.isatty())
