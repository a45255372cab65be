"""Where results go: a remote application entity, or a folder. Both take objects and say what came.

A destination raises a `DeliveryError` when it is not reachable as a whole, and yields a `Result`
for each object otherwise; the worker needs to know no more.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

from node.config.model import Config
from node.domain import AETitle
from node.errors import NotAccepted, PeerUnreachable
from node.scu.association import Association, PeerAE
from node.scu.echo import echo
from node.scu.sender import Outcome, Outgoing, Result, batches, contexts_for, send
from node.store.files import FileOps, SystemFileOps

FILE_PREFIXES: Final = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.66.1": "REG",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.22": "SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
}
"""SOP Class UID -> first part of a file name, for people; any other class is ``DICOM``."""


class Destination(Protocol):
    """What `node.scu.delivery` delivers to."""

    @property
    def name(self) -> str:
        """Name in the configuration, and in the ledger."""
        ...

    def probe(self) -> None:
        """Ask, cheaply, whether it is there again; raises a `DeliveryError` if not."""
        ...

    def deliver(self, items: Sequence[Outgoing]) -> Iterator[Result]:
        """Yield what became of each object, in order, as soon as it is known.

        Raises
        ------
        DeliveryError
            The destination is gone; nothing is known about the object that came next.
        """
        ...

    def close(self) -> None:
        """Let go of what is held open; there is nothing to deliver now."""
        ...


class PeerDestination:
    """A storage SCP; its association stays open while there is work."""

    def __init__(self, name: str, peer: PeerAE) -> None:
        self._name = name
        self._peer = peer
        self._association: Association | None = None

    @property
    def name(self) -> str:
        """Name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Send one C-ECHO; a peer that does not offer it is as good as one that answers."""
        with suppress(NotAccepted):
            echo(self._peer, count=1)

    def deliver(self, items: Sequence[Outgoing]) -> Iterator[Result]:
        """Send over the open association, or over a new one where it does not fit."""
        for part in batches(items):
            association = self._association_for(part)
            for item in part:
                try:
                    result = send(association, item)
                except BaseException:
                    self._association = None
                    association.abort()
                    raise
                yield result

    def close(self) -> None:
        """Release the association."""
        association, self._association = self._association, None
        if association is not None:
            association.release()

    def _association_for(self, items: Sequence[Outgoing]) -> Association:
        contexts = contexts_for(items)
        if self._association is not None and self._association.proposed >= set(contexts):
            try:
                self._association.check()
            except PeerUnreachable:  # ended by the peer while idle, which is its right
                self._association.abort()
                self._association = None
        else:
            self.close()
        if self._association is None:
            self._association = Association.open(self._peer, contexts)
        return self._association


class FolderDestination:
    """A folder: each object becomes one DICOM file, whole and synced before it has its name."""

    def __init__(self, name: str, folder: Path, ops: FileOps | None = None) -> None:
        self._name = name
        self._folder = folder
        self._ops = ops or SystemFileOps()

    @property
    def name(self) -> str:
        """Name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Look whether the folder can be had."""
        with _reported(self._name):
            self._ops.make_directory(self._folder)

    def deliver(self, items: Sequence[Outgoing]) -> Iterator[Result]:
        """Write each object; one that is there already, byte for byte, is left alone."""
        self.probe()
        for item in items:
            yield self._write(item)

    def close(self) -> None:
        """Nothing is held open."""

    def _write(self, item: Outgoing) -> Result:
        if not re.fullmatch(r"[0-9.]{1,64}", item.sop_instance_uid):
            return _refused(item, "its SOP Instance UID is no file name")
        try:
            content = item.path.read_bytes()
        except OSError as error:
            return _refused(item, f"the stored file cannot be read: {error.strerror}")
        prefix = FILE_PREFIXES.get(item.sop_class_uid, "DICOM")
        target = self._folder / f"{prefix}-{item.sop_instance_uid}.dcm"
        part = self._folder / f".{target.name}.part"
        with _reported(self._name):
            if target.exists():
                if target.read_bytes() != content:
                    return _refused(item, "the folder holds another file of this name")
                # the node may have died between the rename and the sync of the folder
                self._ops.sync_directory(self._folder)
            else:
                part.unlink(missing_ok=True)  # left by a node that was killed
                self._ops.write_new(part, [content])
                self._ops.move(part, target)
        return Result(item=item, outcome=Outcome.SENT, status=0, reason="written")


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn an error of the file system into a `DeliveryError`."""
    try:
        yield
    except OSError as error:
        raise PeerUnreachable(
            f"folder {name}: {error.strerror or type(error).__name__}",
            hint="the folder must exist, have room and be writable for the node",
        ) from error


def destinations_of(config: Config) -> list[Destination]:
    """Return every peer that can be sent to and every folder of the configuration."""
    found: list[Destination] = [
        PeerDestination(name, peer)
        for name, peer in ((name, peer_of(config, name)) for name in config.peers)
        if peer is not None
    ]
    found += [FolderDestination(name, folder.path) for name, folder in config.folders.items()]
    return found


def peer_of(config: Config, name: str) -> PeerAE | None:
    """Return the peer of this name as something to call, or None where it only sends."""
    peer = config.peers[name]
    if peer.host is None or peer.port is None:
        return None
    return PeerAE(
        ae_title=AETitle(peer.ae_title),
        host=peer.host,
        port=peer.port,
        calling_ae_title=AETitle(config.node.ae_titles[0]),
        connect_timeout_s=peer.connect_timeout_s,
        response_timeout_s=peer.response_timeout_s,
    )


def _refused(item: Outgoing, reason: str) -> Result:
    return Result(
        item=item,
        outcome=Outcome.REFUSED,
        status=None,
        reason=reason,
        hint="look into the destination folder and at the data volume",
    )
