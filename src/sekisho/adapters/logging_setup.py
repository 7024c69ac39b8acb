"""The one place where logging is set up: events with keys and values, on standard error.

A terminal gets coloured lines, everything else one JSON object a line. Tracebacks never show the
values of variables: a secret might be among them.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import structlog

Form = Literal["auto", "json", "console"]
Level = Literal["debug", "info", "warning", "error"]


def set_up_logging(level: Level = "info", form: Form = "auto") -> None:
    """Send events of ``level`` and above to standard error. May be called again to change it."""
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_console() if console else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def silence() -> None:
    """Drop all events: for commands of people, who are told what they need in words."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def _console() -> list[structlog.types.Processor]:
    plain = structlog.dev.plain_traceback
    colors = sys.stderr.isatty()
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _json() -> list[structlog.types.Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(serializer=_text),
    ]


def _text(event: Any, default: Callable[[Any], Any]) -> str:
    """Return ``event`` as JSON; `json` takes thrice as long, and takes what is no text at all."""
    try:
        return msgspec.json.encode(event, enc_hook=default).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        return json.dumps(event, default=default)
