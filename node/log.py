"""One line an event, on a stream; UIDs yes, a patient's name, ID or birth date never.

``event(logger, "association_ended", received=120)`` writes, for people or as JSON::

    2026-11-20T18:44:03Z INFO association_ended assoc=8f2a01cc received=120

`bound` adds the correlation ids (association, job, delivery) to every line below it. What other
libraries log is withheld: pydicom prints offending values, so of a foreign record only its class,
its DICOM tags and the place in the library's source are kept. The same holds for tracebacks:
frames and classes, and the text of our own errors alone, which hold no values by construction.
"""

import contextlib
import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Literal, TextIO

from typing_extensions import override

Field = str | int | float | bool | None
"""What a field of an event may hold."""

_OURS: Final = frozenset({"node", "pipelines", "models", "demo", "rtnode"})
"""First part of the logger names and exception modules whose text is known to hold no values."""
_TAG: Final = re.compile(r"\(([0-9A-Fa-f]{4}),\s?([0-9A-Fa-f]{4})\)")
_WARNING: Final = re.compile(r"^(?P<path>[^\n]*?):(?P<line>\d+): (?P<category>\w+): ")
_BARE: Final = re.compile(r"[A-Za-z0-9_.:/@+\-]+")
"""A text that needs no quotes in the people's format."""
_NOTHING: Final[Mapping[str, Field]] = MappingProxyType({})
_context: ContextVar[Mapping[str, Field]] = ContextVar("rtnode_log_context", default=_NOTHING)


def event(
    logger: logging.Logger,
    action: str,
    *,
    level: int = logging.INFO,
    error: BaseException | None = None,
    **fields: Field,
) -> None:
    """Log one event under a stable name.

    Parameters
    ----------
    logger : logging.Logger
        The module's own logger.
    action : str
        Stable snake_case name, e.g. ``association_ended``.
    level : int
        ERROR only when a person must act.
    error : BaseException, optional
        Its traceback is appended, without the text of foreign exceptions.
    **fields
        Counts, durations (unit in the key), AE titles, UIDs; never a value that names a patient.
    """
    logger.log(level, action, exc_info=error, extra={"fields": fields})


@contextlib.contextmanager
def bound(**fields: Field) -> Iterator[None]:
    """Add `fields` to every event logged in this context (thread or task) until the end."""
    token = _context.set(MappingProxyType({**_context.get(), **fields}))
    try:
        yield
    finally:
        _context.reset(token)


def configure(
    form: Literal["people", "json"] = "people",
    level: str = "INFO",
    stream: TextIO | None = None,
) -> None:
    """Send all logging of the process, warnings and last-resort tracebacks included, to `stream`.

    Parameters
    ----------
    form : {"people", "json"}
        How a line looks.
    level : str
        Least severe level that is written.
    stream : TextIO, optional
        Standard output where it is not given.
    """
    handler = _Handler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if form == "json" else PeopleFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("pydicom", "pynetdicom"):
        library = logging.getLogger(noisy)
        library.handlers = []
        library.propagate = True
        library.setLevel(logging.WARNING)  # spares them the making of the message
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


class PeopleFormatter(logging.Formatter):
    """``time LEVEL action key=value ...``, one line; a traceback follows indented."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`."""
        action, fields = told(record)
        parts = [_utc(record).strftime("%Y-%m-%dT%H:%M:%SZ"), record.levelname, _one_line(action)]
        parts += [f"{key}={_readable(value)}" for key, value in fields.items()]
        error = record.exc_info[1] if record.exc_info else None
        below = ["", *traceback_lines(error)] if error is not None else []
        return " ".join(parts) + "\n    ".join(below)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``event``, ``logger`` and the fields."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`."""
        action, fields = told(record)
        line: dict[str, object] = {
            "time": _utc(record).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": action,
            "logger": record.name,
            **fields,
        }
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["traceback"] = traceback_lines(error)
        return json.dumps(line, ensure_ascii=False)


def told(record: logging.LogRecord) -> tuple[str, dict[str, Field]]:
    """Return the action and the fields of `record` that may be written."""
    context = dict(_context.get())
    if not _is_ours(record.name):
        return "library_message", {**context, **_redacted(record)}
    given = getattr(record, "fields", None)
    if given is None:
        return record.getMessage(), context
    return str(record.msg), {**context, **given}


def traceback_lines(error: BaseException) -> list[str]:
    """Return frames and classes of `error` and its causes; foreign texts are withheld.

    The text of a foreign exception may quote a DICOM value (``invalid literal for int():
    '19390404'``); an `OSError` keeps its number and meaning, without the file name.
    """
    lines: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        lines.append(describe(current))
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}"
            for frame in traceback.extract_tb(current.__traceback__)
        ]
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return lines


def describe(error: BaseException) -> str:
    """Return class and, where it holds no values, text of `error`: safe to log and to store."""
    name = type(error).__name__
    if _is_ours(type(error).__module__):
        return f"{name}: {error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: [Errno {error.errno}] {error.strerror}"
    return name


class _Handler(logging.StreamHandler[TextIO]):
    """A stream handler for our events; of libraries, only warnings and worse.

    Its own failures print no record, because the arguments may hold values.
    """

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Drop what libraries chat about: withheld text below WARNING tells nobody anything."""
        if record.levelno < logging.WARNING and not _is_ours(record.name):
            return False
        return bool(super().filter(record))

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """Say that a line could not be written, and nothing of it."""
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(f"ERROR a log line of {record.name}:{record.lineno} was lost\n")


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in _OURS or name == "__main__"


def _redacted(record: logging.LogRecord) -> dict[str, Field]:
    """Return class, tags and source position of a foreign record, nothing of its text."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):
        message = ""
    where, category = f"{record.filename}:{record.lineno}", ""
    warned = _WARNING.match(message) if record.name == "py.warnings" else None
    if warned:
        where = f"{Path(warned['path']).name}:{warned['line']}"
        category = warned["category"]
    elif record.exc_info and record.exc_info[0]:
        category = record.exc_info[0].__name__
    tags = dict.fromkeys(f"({a},{b})".upper() for a, b in _TAG.findall(message))
    fields: dict[str, Field] = {"library": record.name, "where": where}
    if category:
        fields["category"] = category
    if tags:
        fields["tags"] = " ".join(tags)
    return fields


def _readable(value: Field) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    text = str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=True)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text, ensure_ascii=True)


def _utc(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _log_uncaught(
    kind: type[BaseException], error: BaseException, _trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    event(logging.getLogger("rtnode"), "crashed", level=logging.CRITICAL, error=error)


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        event(
            logging.getLogger("rtnode"),
            "thread_crashed",
            level=logging.CRITICAL,
            error=args.exc_value,
            thread=args.thread.name if args.thread else None,
        )


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    if args.exc_value is not None:
        event(
            logging.getLogger("rtnode"), "error_ignored", level=logging.ERROR, error=args.exc_value
        )
