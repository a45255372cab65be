"""Where results go: a remote application entity, a folder, a DICOMweb server (`node.scu.stow`).

A destination raises a `DeliveryError` when it is not reachable as a whole, and yields a `Result`
for each object otherwise; the worker needs to know no more.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol

import pydicom

from node.config.model import Config
from node.domain import AETitle, Uid
from node.errors import NotAccepted, PeerRefused, PeerUnreachable
from node.log import event
from node.scu.association import Association, PeerAE
from node.scu.dicomweb import Server
from node.scu.echo import echo
from node.scu.query import held_at
from node.scu.sender import Outcome, Outgoing, Result, batches, contexts_for, send_each
from node.scu.stow import StowDestination
from node.store.files import FileOps, SystemFileOps
from node.tls import requestor_context

_log = logging.getLogger(__name__)

FILE_PREFIXES: Final = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.104.1": "PDF",
    "1.2.840.10008.5.1.4.1.1.7": "SC",
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
    "1.2.840.10008.5.1.4.1.1.66.1": "REG",
    "1.2.840.10008.5.1.4.1.1.66.3": "REG",
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.88.22": "SR",
    "1.2.840.10008.5.1.4.1.1.88.33": "SR",
    "1.2.840.10008.5.1.4.1.1.88.34": "SR",
}
"""SOP Class UID -> first part of a file name, for people; any other class is ``DICOM``."""

_TABLE_SUFFIXES: Final = frozenset({".csv", ".json"})


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
    """A storage SCP; its association stays open while there is work.

    Parameters
    ----------
    name : str
        In the configuration.
    peer : PeerAE
    query : bool
        It answers C-FIND: what it may hold already is looked up before it is sent again.
    commitment : bool
        It commits: where it answers no C-FIND, the commitment tells what it holds.
    """

    def __init__(
        self, name: str, peer: PeerAE, *, query: bool = False, commitment: bool = False
    ) -> None:
        self._name = name
        self._peer = peer
        self._query = query
        self._commitment = commitment
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
        """Send over the open association, or over a new one where it does not fit.

        What an earlier attempt may have left at the peer is not sent again blindly: some archives
        drop an object of which a second copy comes while they still work on the first.
        """
        known = self._known(items)
        yield from known
        done = {result.item for result in known}
        for part in batches([item for item in items if item not in done]):
            association = self._association_for(part)
            results = send_each(association, part)
            while True:
                try:
                    result = next(results)
                except StopIteration:
                    break
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

    def _known(self, items: Sequence[Outgoing]) -> list[Result]:
        """Return the results of what is certain, or becomes so, without sending it again."""
        doubtful = [item for item in items if item.doubtful]
        if not doubtful or not (self._query or self._commitment):
            return []
        if not self._query:
            return [
                Result(item=item, outcome=Outcome.UNCONFIRMED, status=None,
                       reason="sent without an answer; its storage commitment will tell")
                for item in doubtful
            ]  # fmt: skip
        try:
            there = _looked_up(self._peer, doubtful)
        except (NotAccepted, PeerRefused) as error:
            event(_log, "lookup_failed", level=logging.WARNING, destination=self._name,
                  reason=str(error), hint=error.advice)  # fmt: skip
            return []  # the same bytes under the same UID once more: no worse than no query
        found = [item for item in doubtful if item.sop_instance_uid in there]
        event(_log, "looked_up", destination=self._name, objects=len(doubtful),
              held=len(found))  # fmt: skip
        return [
            Result(item=item, outcome=Outcome.SENT, status=0, reason="the peer holds it already")
            for item in found
        ]

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
    """A folder: each object becomes one DICOM file, whole and synced before it has its name.

    Beside a structured report lie the CSV and JSON tables of its job, for research.
    """

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
        with _reported(self._name):
            if target.exists():
                if target.read_bytes() != content:
                    return _refused(item, "the folder holds another file of this name")
                # the node may have died between the rename and the sync of the folder
                self._ops.sync_directory(self._folder)
            else:
                for table in _tables(item):
                    self._publish(self._folder / f"{target.stem}.{table.name}", table.read_bytes())
                self._publish(target, content)
        return Result(item=item, outcome=Outcome.SENT, status=0, reason="written")

    def _publish(self, target: Path, content: bytes) -> None:
        part = target.with_name(f".{target.name}.part")
        part.unlink(missing_ok=True)  # left by a node that was killed
        self._ops.write_new(part, [content])
        self._ops.move(part, target)


def _tables(item: Outgoing) -> list[Path]:
    """Return the tables that lie beside a structured report; they come before it."""
    if item.report is None or FILE_PREFIXES.get(item.sop_class_uid) != "SR":
        return []
    return sorted(p for p in item.report.glob("*") if p.suffix in _TABLE_SUFFIXES)


def _looked_up(peer: PeerAE, items: Sequence[Outgoing]) -> set[Uid]:
    """Return the SOP Instance UIDs of `items` that the peer holds."""
    groups: dict[tuple[Uid, Uid], list[Uid]] = {}
    for item in items:
        groups.setdefault(_series_of(item), []).append(item.sop_instance_uid)
    there: set[Uid] = set()
    for (study, series), uids in groups.items():
        there |= held_at(peer, study, series, uids)
    return there


def _series_of(item: Outgoing) -> tuple[Uid, Uid]:
    """Return study and series of a stored object; empty where its file cannot be read."""
    try:
        header = pydicom.dcmread(
            item.path,
            force=True,
            stop_before_pixels=True,
            specific_tags=["StudyInstanceUID", "SeriesInstanceUID"],
        )
        return Uid(str(header.StudyInstanceUID)), Uid(str(header.SeriesInstanceUID))
    except Exception as error:
        raise NotAccepted("the stored file cannot be read", hint="run `rtnode check`") from error


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
    """Return every peer that can be sent to, every folder, every DICOMweb server.

    Raises
    ------
    ConfigError
        A file of a secret or certificate cannot be used.
    """
    found: list[Destination] = [
        PeerDestination(
            name,
            peer,
            query=config.peers[name].query,
            commitment=config.peers[name].commitment,
        )
        for name, peer in ((name, peer_of(config, name)) for name in config.peers)
        if peer is not None
    ]
    found += [FolderDestination(name, folder.path) for name, folder in config.folders.items()]
    found += [StowDestination(n, Server.of(n, section)) for n, section in config.dicomweb.items()]
    return found


def peer_of(config: Config, name: str) -> PeerAE | None:
    """Return the peer of this name as something to call, or None where it only sends."""
    peer = config.peers[name]
    if peer.host is None or peer.port is None:
        return None
    tls = config.node.tls if peer.tls else None
    credentials = None if tls is None else tls.credentials()
    return PeerAE(
        ae_title=AETitle(peer.ae_title),
        host=peer.host,
        port=peer.port,
        calling_ae_title=AETitle(config.node.ae_titles[0]),
        connect_timeout_s=peer.connect_timeout_s,
        response_timeout_s=peer.response_timeout_s,
        tls=None if credentials is None else requestor_context(credentials),
        tls_name=peer.tls_name,
        tls_identities=frozenset(peer.tls_identity),
    )


def _refused(item: Outgoing, reason: str) -> Result:
    return Result(
        item=item,
        outcome=Outcome.REFUSED,
        status=None,
        reason=reason,
        hint="look into the destination folder and at the data volume",
    )
