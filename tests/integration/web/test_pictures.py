"""Pictures through the real child: right voxels and outlines, nothing that hurts the page."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.store.store import Store
from node.web.pictures.client import NoPicture, Pictures
from node.web.pictures.subject import Stack, Subject, subject_of_job
from tests.store_kit import ct, part10, start_job, store
from tests.web_kit import RADIUS_MM, SIZE, SLICES, body, browser, contoured_job, log_in, site


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Store]:
    with store(tmp_path / "data") as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures() -> Iterator[Pictures]:
    made = Pictures(memory_mb=6144, timeout_s=60, monotonic=time.monotonic)
    yield made
    made.close()


def stack(folder: Path, slices) -> Subject:
    paths = []
    for number, ds in enumerate(slices):
        path = folder / f"{number}.dcm"
        path.write_bytes(part10(ds))
        paths.append(path)
    return Subject(key=str(folder), stacks=(Stack(label="CT", paths=tuple(paths)),))


def hu(pictures: Pictures, subject: Subject, axis: int, index: int) -> np.ndarray:
    facts = pictures.ask(subject, "scene").head["planes"][axis]
    plane = pictures.ask(subject, "plane", volume=0, axis=axis, index=index).body
    return np.frombuffer(plane, "<i2").reshape(facts["height"], facts["width"])


def test_planes_show_hounsfield_units_where_they_are(pictures: Pictures, tmp_path: Path) -> None:
    subject = stack(tmp_path, [body(n) for n in range(1, 6)])

    facts = pictures.ask(subject, "scene").head
    transverse = hu(pictures, subject, 0, 2)
    coronal = hu(pictures, subject, 1, SIZE // 2)

    assert facts["planes"][0]["spacing"] == [2.0, 2.0]
    assert facts["planes"][1]["spacing"] == [2.0, 4.0]
    assert (transverse[32, 32], transverse[0, 0]) == (0, -1024)
    x = -63.0 + 2.0 * np.arange(SIZE)
    assert np.array_equal(transverse[31] == 0, np.hypot(x, x[31]) <= RADIUS_MM)
    assert coronal.shape == (5, SIZE)
    # The matrix takes (toward head, toward back, toward left) to patient mm.
    lps = np.array(facts["affine"]) @ [2, 32, 31, 1]
    assert np.allclose(lps, [-1.0, 1.0, 12.0])


def test_contours_of_a_job_lie_on_its_image(
    data: Store, pictures: Pictures, tmp_path: Path
) -> None:
    detail = data.ledger.job_detail(contoured_job(data, tmp_path))
    assert detail is not None
    subject = subject_of_job(detail)
    assert subject is not None

    facts = pictures.ask(subject, "scene").head
    found = pictures.ask(subject, "lines", axis=0, index=4).head["lines"]
    across = pictures.ask(subject, "lines", axis=1, index=32).head["lines"]

    assert [s["name"] for s in facts["structures"]] == ["Body"]
    assert facts["sets"] == [{"label": "AUTO", "derived": True}]
    (line,) = found["0"]
    radius = np.hypot(*(2.0 * np.array(line).reshape(-1, 2).T - 63.0))
    assert np.allclose(radius, RADIUS_MM, atol=0.05)
    (side,) = across["0"]
    rows = np.array(side).reshape(-1, 2)[:, 1]
    assert (rows.min(), rows.max()) == pytest.approx((-0.5, SLICES - 0.5), abs=0.15)


def test_the_page_sends_planes_packed_and_lines_as_json(data: Store, tmp_path: Path) -> None:
    job = contoured_job(data, tmp_path)
    with site(tmp_path / "data", data.ledger) as made, browser(made) as client:
        log_in(client)
        plane = client.get(f"/jobs/{job}/plane/0/0/3")
        lines = client.get(f"/jobs/{job}/lines/0/3").json()
        beyond = client.get(f"/jobs/{job}/plane/0/0/99")
        histogram = client.get(f"/jobs/{job}/histogram").json()
        series = client.get("/series/1.2.3.2/scene").json()

    assert len(plane.content) == 2 * SIZE * SIZE
    assert lines["lines"].keys() == {"0"}
    assert (beyond.status_code, "no such plane" in beyond.text) == (422, True)
    curve = histogram["curves"][0]
    assert curve["x"][int(np.argmax(curve["y"]))] == pytest.approx(10.0)  # water: bin 0 to 20 HU
    assert [p["count"] for p in series["planes"]] == [SLICES, SIZE, SIZE]


def test_missing_slices_are_told_in_words(pictures: Pictures, tmp_path: Path) -> None:
    subject = stack(tmp_path, [body(n) for n in (1, 2, 3, 6, 7, 8)])

    with pytest.raises(NoPicture, match="2 slices are missing"):
        pictures.ask(subject, "scene")


def test_a_lie_about_the_size_is_refused_and_the_child_lives(
    pictures: Pictures, tmp_path: Path
) -> None:
    liar = [ct(n) for n in (1, 2)]
    for ds in liar:
        ds.Rows = ds.Columns = 65_535
    (tmp_path / "a").mkdir()
    subject = stack(tmp_path / "a", liar)

    with pytest.raises(NoPicture):
        pictures.ask(subject, "scene")

    (tmp_path / "b").mkdir()
    good = stack(tmp_path / "b", [body(n) for n in (1, 2)])
    assert pictures.ask(good, "scene").head["images"]


def test_bytes_that_are_no_dicom_are_refused(pictures: Pictures, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(b"\x00" * 500)
    subject = Subject(key="junk", stacks=(Stack(label="CT", paths=(path, path)),))

    with pytest.raises(NoPicture):
        pictures.ask(subject, "scene")


def fake(code: str, timeout_s: float = 3.0) -> Pictures:
    return Pictures(
        memory_mb=1, timeout_s=timeout_s, monotonic=time.monotonic,
        command=(sys.executable, "-c", code),
    )  # fmt: skip


ANYTHING = Subject(key="k", stacks=(Stack(label="CT", paths=()),))
ECHO = (
    "import sys, json\n"
    "for line in sys.stdin:\n"
    "    print(json.dumps({'what': json.loads(line)['what'], 'bytes': 0}), flush=True)\n"
)


def test_a_child_that_hangs_is_killed_in_time() -> None:
    hanging = fake("import time; time.sleep(60)", timeout_s=0.5)
    began = time.monotonic()

    with pytest.raises(NoPicture, match="no picture within"):
        hanging.ask(ANYTHING, "scene")

    assert time.monotonic() - began < 10
    hanging.close()


@pytest.mark.parametrize(
    "code", ["raise SystemExit(1)", "print('no json')", "import os; os.abort()"]
)
def test_a_child_that_dies_or_babbles_is_told_and_replaced(code: str, tmp_path: Path) -> None:
    flag = tmp_path / "died"
    dying = fake(
        f"import pathlib\nflag = pathlib.Path({str(flag)!r})\n"
        f"if not flag.exists():\n    flag.touch()\n    {code}\n    raise SystemExit\n{ECHO}",
        timeout_s=10.0,
    )

    with pytest.raises(NoPicture, match="could not be decoded"):
        dying.ask(ANYTHING, "scene")

    assert dying.ask(ANYTHING, "scene").head == {"what": "scene"}
    dying.close()


def test_a_job_can_be_looked_at_before_it_ran(data: Store) -> None:
    detail = data.ledger.job_detail(start_job(data))
    assert detail is not None

    subject = subject_of_job(detail)

    assert subject is not None
    assert [(s.label, len(s.paths)) for s in subject.stacks] == [("CT", 2)]
