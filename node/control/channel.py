"""The control channel of a running node: JSON lines over a Unix socket in the data folder.

State changes asked for on the command line go through the running node, because one process owns
the writing connection of the ledger. The socket has mode 0600 and answers its own user and root
only. It is bound and called through a descriptor of the folder (``/proc/self/fd/N``), because a
socket path has at most 107 bytes and a data folder may be deeper.

A request is ``{"command": "retry", "arguments": {"job": 7}}``, an answer ``{"ok": true,
"result": ...}`` or ``{"ok": false, "error": "...", "hint": "..."}``; one of each a connection.
"""

import contextlib
import json
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from pydantic import JsonValue

from node.errors import NodeError
from node.lifecycle import IllegalTransition
from node.log import describe, event

SOCKET_NAME: Final = "control.sock"
_MAX_LINE: Final = 1 << 20
"""Bytes of a request or an answer."""
_TIMEOUT_S: Final = 15.0
"""For a whole exchange; above the ten seconds that the ledger may wait for its lock."""
_SO_PEERCRED: Final = "3i"
"""struct ucred: pid, uid, gid."""

Handler: TypeAlias = Callable[[Mapping[str, JsonValue]], JsonValue]
"""Takes the arguments of a request, returns its result; a `NodeError` becomes the answer."""

logger = logging.getLogger(__name__)


class NotRunning(NodeError):
    """No node runs on this data folder."""

    hint = "start it: `rtnode serve`"


class Refused(NodeError):
    """The running node could not do what was asked."""

    hint = "look at `rtnode status`"


class ControlServer:
    """Answers requests on the socket of a data folder with a table of handlers.

    Start it only with the lock of the data folder held: a socket that lies there is then a
    leftover and is replaced. Handlers run in a thread a connection.
    """

    def __init__(self, data_dir: Path, handlers: Mapping[str, Handler]) -> None:
        self._data_dir = data_dir
        self._handlers = handlers
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        """Bind the socket and answer from now on."""
        with _short_path(self._data_dir) as path:
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            os.fchmod(listener.fileno(), 0o600)  # before bind: the file is born with this mode
            listener.bind(str(path))
        listener.listen(8)
        self._socket = listener
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; requests in progress finish by themselves."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._socket.close()
        self._socket = None
        (self._data_dir / SOCKET_NAME).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        listener = self._socket
        while listener is not None:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connection,), name="control-request", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client may leave at any time
            connection.settimeout(_TIMEOUT_S)
            if not _is_allowed(connection):
                return
            answer = self._answer(_read_line(connection))
            connection.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, line: bytes) -> dict[str, JsonValue]:
        try:
            request = json.loads(line)
            command, arguments = str(request["command"]), dict(request.get("arguments", {}))
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {"ok": False, "error": "not a request", "hint": ""}
        handler = self._handlers.get(command)
        if handler is None:
            known = ", ".join(self._handlers)
            return {"ok": False, "error": f"unknown command '{command}'", "hint": f"one of {known}"}
        try:
            result = handler(arguments)
        except NodeError as error:
            return {"ok": False, "error": str(error), "hint": error.advice}
        except (IllegalTransition, LookupError, ValueError, TypeError) as error:
            event(
                logger,
                "control_refused",
                level=logging.WARNING,
                command=command,
                reason=describe(error),
            )
            return {"ok": False, "error": describe(error), "hint": "look at `rtnode status`"}
        event(logger, "control_done", level=logging.DEBUG, command=command)
        return {"ok": True, "result": result}


def request(data_dir: Path, command: str, **arguments: JsonValue) -> JsonValue:
    """Ask the node that runs on `data_dir` and return its result.

    Raises
    ------
    NotRunning
        If no node answers on this folder.
    Refused
        With the node's own words and hint.
    """
    line = json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with client:
        client.settimeout(_TIMEOUT_S)
        try:
            with _short_path(data_dir) as path:
                client.connect(str(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NotRunning from None
        except PermissionError:
            raise NotRunning(
                "the control socket belongs to another user", hint="run as the user of the node"
            ) from None
        try:
            client.sendall(line)
            answer = json.loads(_read_line(client))
        except (OSError, ValueError):
            raise NotRunning("the node closed the control channel or did not answer") from None
    if not answer["ok"]:
        raise Refused(str(answer["error"]), hint=str(answer["hint"]))
    result: JsonValue = answer["result"]
    return result


@contextlib.contextmanager
def _short_path(data_dir: Path) -> Iterator[Path]:
    """Yield a short path of the socket in `data_dir`, valid inside the block."""
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{folder}") / SOCKET_NAME
    finally:
        os.close(folder)


def _is_allowed(connection: socket.socket) -> bool:
    """Tell whether the caller is our own user or root, whatever the mode of the file became."""
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_SO_PEERCRED)
    )
    _pid, uid, _gid = struct.unpack(_SO_PEERCRED, credentials)
    return uid in {0, os.geteuid()}


def _read_line(connection: socket.socket) -> bytes:
    """Return what comes up to a line end or the end of the stream; OSError when it is too long."""
    received = bytearray()
    while not received.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            break
        received += part
        if len(received) > _MAX_LINE:
            raise OSError("the line is too long")
    return bytes(received)
