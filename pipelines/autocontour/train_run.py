"""``rtnode contour train``: a site's own patients in, a model pack with its report out.

A single run holds a fifth of the patients out. With several folds each patient is held out once,
by a network that did not see it, and the network of the pack learns from all of them; the time is
divided evenly. Every part goes on where it stopped when the command is given again.
"""

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from matplotlib.figure import Figure

from models.pack import DataSource
from models.training.cases import Case, folds
from models.training.contour import train_network
from models.training.contour_recipe import Recipe
from models.training.contour_sampling import other_sides
from models.training.evaluate_contour import Score, contour, score, summary, torch_network
from models.training.loop import LOG_STEPS, Budget
from models.training.openkbp import ORGANS, read_cases
from models.training.pack_contour import COLUMNS, Description, build_pack
from models.unet import UNet
from pipelines.api import InputRejected
from pipelines.autocontour.patients import Patients, read_patients
from pipelines.report.figures import Overlay, Scan, three_planes
from pipelines.report.page import Picture, Section, Table, write_page

HELD_OUT_PARTS: Final = 5
"""Without cross-validation one patient in five is held out."""
PICTURES: Final = 3
"""Held-out patients that are drawn."""
HEAD_WINDOW: Final = (40.0, 400.0)
"""Level and width [HU] of the sample pictures."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained."""

    data: Path
    """A folder of CT and RTSTRUCT, or a tar of npz as the OpenKBP training pack."""
    out: Path
    recipe: Recipe
    minutes: float
    """Wall time of all parts together."""
    folds: int = 1
    aliases: dict[str, tuple[str, ...]]
    """See `read_patients`."""
    name: str = "site-contour"
    body_region: str = "unnamed region"
    data_licence: str = "not stated"
    threads: int = 1


def run(order: Order, tell: Tell) -> Path:
    """Train, score, draw, pack; return the folder of the pack.

    Raises
    ------
    InputRejected
        If there are too few patients, or an organ to be mirrored has no counterpart.
    """
    torch.set_num_threads(order.threads)
    patients = _patients(order, tell)
    _check(patients, order)
    parts = folds(patients.cases, max(order.folds, 1) if order.folds > 1 else HELD_OUT_PARTS)
    _check_parts(parts if order.folds > 1 else parts[:1], patients)
    minutes = order.minutes / (order.folds + 1 if order.folds > 1 else 1)
    rows: list[tuple[Case, dict[str, Score]]] = []
    pictures: list[Picture] = []
    for number, unseen in enumerate(parts if order.folds > 1 else parts[:1], start=1):
        seen = [c for part in parts if part is not unseen for c in part]
        out = order.out / (f"fold-{number}" if order.folds > 1 else "run")
        tell(f"{out.name}: {len(seen)} images to learn from, {len(unseen)} held out")
        net = train_network(seen, patients.organs, order.recipe, out, Budget(minutes=minutes), tell)
        rows += _score(net, unseen, patients.organs, order, pictures)
    trained = [c for part in parts[1:] for c in part]
    if order.folds > 1:
        trained = list(patients.cases)
        tell(f"run: {len(trained)} images to learn from")
        train_network(trained, patients.organs, order.recipe, order.out / "run",
                      Budget(minutes=minutes), tell)  # fmt: skip
    metrics = summary({o: [s[o] for _, s in rows if o in s] for o in patients.organs})
    pack = build_pack(
        order.out / "run",
        order.out / "pack",
        _described(order, len({c.name for c in trained}), len({c.name for c, _ in rows})),
        trained,
        metrics,
    )
    _report(order, patients, metrics, pictures)
    return pack


def _patients(order: Order, tell: Tell) -> Patients:
    if order.data.is_dir():
        patients = read_patients(order.data, order.aliases)
    else:
        patients = Patients(cases=tuple(read_cases(order.data)), organs=ORGANS, left_out=())
    for sentence in sorted(set(patients.left_out)):
        tell(f"left out, {patients.left_out.count(sentence)} times: {sentence}")
    return patients


def _check(patients: Patients, order: Order) -> None:
    least = max(order.folds, 2)
    if len({c.name for c in patients.cases}) < least:
        raise InputRejected(
            f"fewer than {least} patients with a wanted structure: none could be held out"
        )
    if not order.recipe.mirror:
        return
    try:
        other_sides(patients.organs)
    except ValueError as error:
        raise InputRejected(
            str(error), hint="name both sides with --organ, or give --no-mirror"
        ) from error


def _check_parts(held_out: Sequence[Sequence[Case]], patients: Patients) -> None:
    """Refuse an organ that no learned patient would have while a part is held out."""
    for part in held_out:
        names = {case.name for case in part}
        known = {label for c in patients.cases if c.name not in names for label in c.drawn}
        for label, organ in enumerate(patients.organs, start=1):
            if label not in known:
                raise InputRejected(
                    f"{organ} was drawn in too few patients to learn it and to hold some out",
                    hint="leave it out: name the organs that are wanted with --organ",
                )


def _score(
    net: UNet, unseen: Sequence[Case], organs: tuple[str, ...], order: Order,
    pictures: list[Picture],
) -> list[tuple[Case, dict[str, Score]]]:  # fmt: skip
    network = torch_network(net)
    rows = []
    for case in unseen:
        answer = contour(case, [network], [order.recipe.frame])
        rows.append((case, score(case, answer, organs)))
        if len(pictures) < PICTURES:
            pictures.append(_sample(case, answer, organs, order.out, len(pictures) + 1))
    return rows


def _sample(
    case: Case, answer: np.ndarray, organs: tuple[str, ...], out: Path, number: int
) -> Picture:
    """Draw one held-out patient: clinician white, network in color."""
    drawn = case.labels > 0
    where = np.argwhere(drawn)
    middle = where[len(where) // 2] if len(where) else np.array(drawn.shape) // 2
    overlays = [Overlay(name="clinician", mask=drawn, color="white")]
    overlays += [
        Overlay(name=organ, mask=answer == label) for label, organ in enumerate(organs, start=1)
    ]
    path = three_planes(
        Scan(hu=case.hu, spacing=case.spacing),
        out / f"sample-{number}.png",
        overlays=overlays,
        window=HEAD_WINDOW,
        title="held-out patient: clinician white, network in color",
        at=(int(middle[0]), int(middle[1]), int(middle[2])),
    )
    return Picture(path=path, caption=f"held-out patient {number}")


def _described(order: Order, trained: int, scored: int) -> Description:
    how = (
        f"Cross-validated over {order.folds} folds: {scored} patients, each scored by a network "
        "that did not see it; the network of this pack saw all of them."
        if order.folds > 1
        else f"{scored} held-out patients."
    )
    return Description(
        id=order.name,
        version="1.0.0",
        title=f"Organs of the {order.body_region}, trained at the site",
        body_region=order.body_region,
        data=(
            DataSource(
                name="patients of the site", licence=order.data_licence, source="local",
                patients=trained,
            ),
        ),
        measured_on=how + " Torch fp32, work voxels of about 2.5 mm.",
        contraindications="other body regions, other scanners than trained on, MR, CBCT; "
        "not a medical device",
        limits=("Measured on the site's own patients only; review every contour.",),
        weights_licence=order.data_licence,
    )  # fmt: skip


def _report(
    order: Order, patients: Patients, metrics: dict[str, Score], pictures: list[Picture]
) -> None:
    (order.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    table = Table(
        head=("organ", "patients", *(title for _, title, _ in COLUMNS)),
        rows=[
            (organ, int(row["n"]), *(round(row[k], d) if k in row else None for k, _, d in COLUMNS))
            for organ, row in metrics.items()
        ],
        caption="on held-out patients; a missed organ counts as Dice 0",
    )
    curve = _curve(order.out / "run" / "losses.csv", order.out / "curve.png")
    kind = order.recipe.mode.upper() + (" GAN" if order.recipe.gan else " U-Net")
    write_page(
        order.out / "index.html",
        "Contouring network",
        [
            Section(title="Accuracy", tables=[table]),
            Section(title="Learning", pictures=[curve]),
            Section(title="Samples", pictures=pictures),
        ],
        lead=f"{kind}, {len(patients.cases)} images, {len(patients.organs)} organs.",
    )


def _curve(losses: Path, path: Path) -> Picture:
    with losses.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 3.5), dpi=110)
    axes = figure.add_subplot()
    for name in rows[0] if rows else ():
        axes.plot([float(row[name]) for row in rows], label=name)
    axes.set_xlabel(f"steps / {LOG_STEPS}")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(path, bbox_inches="tight")
    return Picture(path=path, caption="loss of the network of the pack")
