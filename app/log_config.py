"""Structured logs on standard error: one JSON object per line, or coloured text for people."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor

from app.settings import Settings
from services.printable import strip_control_characters

_QUIET = ("httpx", "httpcore", "urllib3", "docker", "alembic", "uvicorn.access", "uvicorn.error")


def configure(settings: Settings) -> None:
    """Route structlog and the standard library's loggers through one formatter; idempotent."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # as plain text: a traceback that shows variables would show secrets
    ]
    console = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    last: list[Processor] = [structlog.processors.JSONRenderer()] if settings.log_format == "json" else [_printable, console]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last], foreign_pre_chain=shared
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _printable(_logger: object, _method: str, entry: EventDict) -> EventDict:
    """Escape control characters and line breaks in text from instances and clients.

    Otherwise that text could control the terminal or forge a log line. The JSON renderer escapes by itself.
    """
    return {name: _on_one_line(name, value) for name, value in entry.items()}


def _on_one_line(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    return strip_control_characters(value if name == "exception" else value.replace("\r", "\\r").replace("\n", "\\n"))
