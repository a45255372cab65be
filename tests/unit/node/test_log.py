"""Log lines: their form, their context, and that no patient is named in them."""

import io
import json
import logging
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from node.errors import PeerUnreachable
from node.log import bound, configure, describe, event, traceback_lines

NAME, IDENTIFIER, BIRTH_DATE = "CANARY^GRETA", "ID-4711-CANARY", "19390404"
CANARIES = (NAME, "GRETA", IDENTIFIER, BIRTH_DATE, "1939")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Put the process-wide hooks and loggers back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    library = logging.getLogger("pydicom")
    kept = library.handlers[:], library.propagate, library.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], root.level = before
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    library.handlers[:], library.propagate, library.level = kept


@pytest.fixture
def stream() -> io.StringIO:
    lines = io.StringIO()
    configure("people", "DEBUG", lines)
    return lines


OURS = logging.getLogger("node.test")


def test_an_event_is_one_line_for_people(stream: io.StringIO) -> None:
    event(OURS, "association_ended", calling="LINAC1", received=120, seconds=4.123456789)

    line = stream.getvalue()
    assert line.endswith("Z INFO association_ended calling=LINAC1 received=120 seconds=4.12346\n")
    assert line.count("\n") == 1


def test_an_event_is_one_json_object_a_line_for_machines() -> None:
    lines = io.StringIO()
    configure("json", "INFO", lines)

    event(OURS, "job_done", job=7, ok=True, note=None)

    told = json.loads(lines.getvalue())
    assert told["event"] == "job_done"
    assert (told["job"], told["ok"], told["note"], told["level"]) == (7, True, None, "INFO")
    assert told["time"].endswith("+00:00")


def test_correlation_ids_reach_every_line_inside_and_none_outside(stream: io.StringIO) -> None:
    with bound(assoc="8f2a01cc"), bound(job=7):
        event(OURS, "inside")
    event(OURS, "outside")

    inside, outside = stream.getvalue().splitlines()
    assert inside.endswith("inside assoc=8f2a01cc job=7")
    assert outside.endswith("outside")


def test_a_field_of_an_event_wins_over_its_context(stream: io.StringIO) -> None:
    with bound(job=7):
        event(OURS, "other", job=8)

    assert stream.getvalue().endswith("other job=8\n")


@pytest.mark.parametrize("hostile", ["A B", "A\nERROR forged", "a=b", 'x"y', "\x1b[31m", ""])
def test_a_value_from_a_peer_cannot_forge_a_line_or_a_field(
    stream: io.StringIO, hostile: str
) -> None:
    event(OURS, "rejected", calling=hostile)

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.rstrip("\n").endswith(f"calling={json.dumps(hostile)}")


def test_a_plain_message_of_ours_is_written_as_it_is(stream: io.StringIO) -> None:
    OURS.warning("waited %d s", 3)

    assert stream.getvalue().endswith("WARNING waited 3 s\n")


def test_the_text_of_our_own_error_is_kept_with_its_traceback(stream: io.StringIO) -> None:
    def connect() -> None:
        raise PeerUnreachable("no connection to PACS at pacs:104")

    try:
        connect()
    except PeerUnreachable as error:
        event(OURS, "delivery_failed", level=logging.WARNING, error=error)

    assert "PeerUnreachable: no connection to PACS at pacs:104" in stream.getvalue()
    assert "test_log.py:" in stream.getvalue()


def test_the_text_of_a_foreign_error_and_of_its_causes_is_withheld(stream: io.StringIO) -> None:
    try:
        try:
            int(NAME)
        except ValueError as error:
            raise RuntimeError(f"bad birth date {BIRTH_DATE}") from error
    except RuntimeError as error:
        event(OURS, "failed", level=logging.ERROR, error=error)

    assert "RuntimeError" in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert not any(canary in stream.getvalue() for canary in CANARIES)


def test_an_operating_system_error_keeps_its_number_and_not_its_file() -> None:
    assert describe(FileNotFoundError(2, "No such file or directory", NAME)) == (
        "FileNotFoundError: [Errno 2] No such file or directory"
    )


def test_errors_that_cause_each_other_are_told_once() -> None:
    first, second = ValueError(), TypeError()
    first.__cause__, second.__cause__ = second, first

    assert traceback_lines(first) == ["ValueError", "TypeError"]


def test_what_a_library_logs_is_reduced_to_class_tag_and_place(stream: io.StringIO) -> None:
    library = logging.getLogger("pynetdicom.acse")
    library.warning("(0010,0030) has the value %s", BIRTH_DATE)
    library.error(f"identifier {NAME}")

    first, second = stream.getvalue().splitlines()
    assert "library_message library=pynetdicom.acse where=test_log.py:" in first
    assert 'tags="(0010,0030)"' in first
    assert not any(canary in first + second for canary in CANARIES)


def test_what_a_library_chats_about_is_dropped(stream: io.StringIO) -> None:
    logging.getLogger("alembic.runtime").info("Context impl SQLiteImpl.")

    assert stream.getvalue() == ""


def test_a_library_record_that_cannot_be_formatted_is_still_told(stream: io.StringIO) -> None:
    configure("people", "DEBUG", stream)  # again: pytest's own handler would raise

    logging.getLogger("pydicom").error("%d", NAME)

    assert "library_message library=pydicom" in stream.getvalue()
    assert NAME not in stream.getvalue()


def test_an_own_record_that_cannot_be_formatted_leaves_a_line_without_it(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    configure("people", "DEBUG", stream)  # again: pytest's own handler would raise

    OURS.error("%d", NAME)

    assert "a log line of node.test" in stream.getvalue()
    assert NAME not in stream.getvalue() + capsys.readouterr().err


def broken_file(folder: Path) -> Path:
    """Write a data set (implicit VR) whose patient values break what pydicom warns about."""
    elements = {
        (0x0010, 0x0010): NAME + "=" * 5,
        (0x0010, 0x0020): IDENTIFIER * 6,
        (0x0010, 0x0030): f"{BIRTH_DATE}-{BIRTH_DATE}",
        (0x0020, 0x0013): f"{NAME}.5",
    }
    path = folder / "broken.dcm"
    with path.open("wb") as file:
        for tag, text in elements.items():
            value = text.encode()
            value += b" " * (len(value) % 2)
            file.write(struct.pack("<HHL", *tag, len(value)) + value)
    return path


def test_no_patient_is_named_while_broken_data_is_read(
    stream: io.StringIO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = broken_file(tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        ds = pydicom.dcmread(path, force=True)
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "InstanceNumber"):
            try:
                float(str(ds[keyword].value))
            except ValueError as error:
                event(OURS, "unreadable", keyword=keyword, error=error)
        logging.captureWarnings(capture=False)

    told = stream.getvalue() + capsys.readouterr().err
    assert "library=py.warnings" in told
    assert "category=UserWarning" in told
    assert "unreadable" in told
    assert not any(canary in told for canary in CANARIES)


def test_a_crash_is_logged_and_no_patient_is_named(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash() -> None:
        raise ValueError(NAME)

    thread = threading.Thread(target=crash, name="receiver")
    thread.start()
    thread.join()
    try:
        crash()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)

    told = stream.getvalue() + capsys.readouterr().err
    assert "CRITICAL thread_crashed thread=receiver" in told
    assert "CRITICAL crashed" in told
    assert NAME not in told


def test_a_stream_that_is_gone_stops_nobody() -> None:
    lines = io.StringIO()
    configure("people", "INFO", lines)
    lines.close()

    event(OURS, "unheard")
