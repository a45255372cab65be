"""The web page on a store of its own, without a node: the control channel is called directly."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from argon2 import PasswordHasher
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from node.clock import SystemClock
from node.config.model import Config
from node.control.channel import Refused
from node.control.handlers import operator_handlers
from node.domain import ResultFile, Uid
from node.errors import NodeError
from node.lifecycle import SeriesEvent
from node.store.ledger import Ledger
from node.store.records import DecisionState
from node.store.store import Store
from node.web.pictures.client import COMMAND, Pictures
from node.web.render import Renderer
from node.web.server import Served
from node.web.sessions import LoginBrake, Sessions
from node.web.site import Remembered, Site
from node.web.users import Role, Users
from tests.node_kit import config
from tests.store_kit import claim, ct, new_job, part10, push, structure_set

PASSWORD = "correct horse battery"
QUICK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Hashes without the cost that protects them: tests log in a hundred times."""


def asked(ledger: Ledger):
    """Return a control channel that calls the handlers in this process."""
    handlers = operator_handlers(ledger)

    def ask(_data_dir: Path, command: str, **arguments):
        try:
            return handlers[command](arguments)
        except NodeError as error:
            raise Refused(str(error), hint=error.advice) from None

    return ask


def web_config(data_dir: Path, **changes) -> Config:
    return config(data_dir, 1, web={"listen": "127.0.0.1:0"}, **changes)


@contextmanager
def site(data_dir: Path, ledger: Ledger, *, clock=None, ask=None, viewer=COMMAND) -> Iterator[Site]:
    """Yield a site with the users `op` (operator) and `view` (viewer)."""
    settings = web_config(data_dir)
    clock = clock or SystemClock()
    users = Users(data_dir / "web-users.json", QUICK)
    users.put("op", Role.OPERATOR, PASSWORD)
    users.put("view", Role.VIEWER, PASSWORD)
    pictures = Pictures(
        memory_mb=6144, timeout_s=60, monotonic=SystemClock().monotonic, command=viewer
    )
    made = Site(
        config=settings,
        web=settings.web,
        clock=clock,
        ledger=lambda: ledger,
        users=users,
        sessions=Sessions(users, clock, idle_s=1800, longest_s=36_000),
        brake=LoginBrake(clock),
        pictures=pictures,
        renderer=Renderer("en"),
        remembered=Remembered(clock, 0.0),
        ask=ask or asked(ledger),
    )
    try:
        yield made
    finally:
        pictures.close()


@contextmanager
def browser(of: Site) -> Iterator[httpx.Client]:
    """Yield a client of the page, served on a free port; it follows no redirect."""
    with Served(of) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def origin(client: httpx.Client) -> dict[str, str]:
    """Return the header that a browser sends with a form of our own page."""
    return {"origin": str(client.base_url).rstrip("/")}


def secret(page: str) -> str:
    """Return the secret of the first form of a page."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None, page[:500]
    return found.group(1)


def log_in(client: httpx.Client, name: str = "op", password: str = PASSWORD, **fields):
    """Send the login form and return the answer."""
    form = client.get("/login")
    data = {"name": name, "password": password, "csrf": secret(form.text), **fields}
    return client.post("/login", data=data, headers=origin(client))


def post(client: httpx.Client, address: str, **fields):
    """Send a form of our own page."""
    token = secret(client.get("/").text)
    return client.post(address, data={"csrf": token, **fields}, headers=origin(client))


SLICES = 12
SIZE = 64
RADIUS_MM = 40.0


def body(number: int, *, series: str = "1.2.3.2", patient: str = "P1") -> Dataset:
    """Return a slice (64 × 64 pixels of 2 mm, 4 mm apart) of a water cylinder in air."""
    ds = ct(number, series=series, patient=patient)
    ds.Rows = ds.Columns = SIZE
    ds.PixelSpacing = [2.0, 2.0]
    ds.ImagePositionPatient = [-63.0, -63.0, 4.0 * number]
    x = -63.0 + 2.0 * np.arange(SIZE)
    inside = np.hypot(*np.meshgrid(x, x)) <= RADIUS_MM
    ds.add_new(0x7FE00010, "OW", np.where(inside, 1024, 0).astype("<u2").tobytes())
    return ds


def contoured(series: str = "1.2.3.2", *, name: str = "Body") -> Dataset:
    """Return a structure set with the cylinder's outline on every slice."""
    ds = structure_set([f"{series}.{n}" for n in range(1, SLICES + 1)], series=series)
    ds.StructureSetLabel = "AUTO"
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    roi, item = Dataset(), Dataset()
    roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = 1, name, "1.2.3.9"
    item.ReferencedROINumber = 1
    item.ROIDisplayColor = [86, 180, 233]
    contours = []
    for number in range(1, SLICES + 1):
        contour = Dataset()
        contour.ContourGeometricType = "CLOSED_PLANAR"
        contour.NumberOfContourPoints = len(angle)
        z = np.full(len(angle), 4.0 * number)
        points = np.column_stack([RADIUS_MM * np.cos(angle), RADIUS_MM * np.sin(angle), z])
        contour.ContourData = [f"{v:.3f}" for v in points.ravel()]
        contours.append(contour)
    item.ContourSequence = Sequence(contours)
    ds.StructureSetROISequence = Sequence([roi])
    ds.ROIContourSequence = Sequence([item])
    return ds


def contoured_job(into: Store, folder: Path, *, series: str = "1.2.3.2") -> int:
    """Push the cylinder, and record a finished job whose result is its outline."""
    for number in range(1, SLICES + 1):
        push(into, body(number, series=series))
    seen = into.ledger.series(series)
    assert seen is not None
    whole = into.ledger.advance_series(seen, SeriesEvent.WHOLE, "12 slices, no gap")
    assert whole is not None
    decision = into.ledger.record_decision(
        whole, route="contours", state=DecisionState.JOB, reason="matches",
        job=new_job(into, whole, route="contours"),
    )  # fmt: skip
    assert decision is not None
    running = claim(into)
    ds = contoured(series)
    path = folder / "draft.dcm"
    path.write_bytes(part10(ds))
    result = ResultFile(
        path=path,
        sop_class_uid=Uid(str(ds.SOPClassUID)),
        sop_instance_uid=Uid(str(ds.SOPInstanceUID)),
        series_instance_uid=Uid(str(ds.SeriesInstanceUID)),
        modality="RTSTRUCT",
    )
    assert into.ledger.finish_job(
        running.id, running.token, [result], findings=[],
        figures={"rois": {"Body": {"volume_cc": 241.3, "contours": SLICES}}},
    )  # fmt: skip
    return running.id
