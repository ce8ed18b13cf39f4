"""Log lines on standard error, as fields.

Every line carries the tier, site and region of its process. Events are ``noun.verb_past`` with
fields, never sentences. Lines of libraries go the same way, warnings and worse only.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

    from runtime.common_settings import LogSettings

_LIBRARY_LEVEL = logging.WARNING


def get_logger(**fields: object) -> FilteringBoundLogger:
    """A logger with bound fields; may be called before ``configure_logs``."""
    logger: FilteringBoundLogger = structlog.get_logger(**fields)
    return logger


def configure_logs(settings: LogSettings, **fields: str) -> None:
    """Sets up the log of this process; ``fields`` (tier, site, region) are part of every line."""
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _AddFields(fields),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Tracebacks never show local variables: those hold payloads and passwords.
    renderers: list[Processor] = (
        [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(default=str),
        ]
        if settings.format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *renderers],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _configure_libraries(shared, renderers, max(level, _LIBRARY_LEVEL))


def _configure_libraries(shared: list[Processor], renderers: list[Processor], level: int) -> None:
    """Sends the standard library's log records through the same processors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Warnings of libraries are for their developers; an operator can do nothing about them.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)


class _AddFields:
    """Adds the fields of the process; what a line says itself goes first.

    Not contextvars: threads that are started later would not see them.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        merged: dict[str, Any] = {**self._fields, **event}
        return merged
