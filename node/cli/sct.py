"""``rtnode sct``: simulate CBCT from CT, train a network, validate it on the site's own pairs.

Commands for a person at a terminal, not for the node. The libraries of the pipeline are loaded by
the command that needs them.
"""

import importlib.util
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from models.pack import PACKS
from node.cli.exits import Exit
from node.cli.text import table
from pipelines.api import PipelineError

if TYPE_CHECKING:
    from models.training.sct_fit import SiteScanner
    from models.training.sct_pairs import Pair
    from models.training.sct_site import Order

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_QUALITY = ("noise-reduction", "super-resolution")
"""Modes of `train` that make a pack for `image_quality`: same loop and loss, another network."""
_NEW = click.Path(file_okay=False, path_type=Path)
_SITE = click.option(
    "--site",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of `rtnode sct fit-simulator`: simulate this site's scanner, not any.",
)


@click.group()
def sct() -> None:
    """Synthetic CT: simulate training pairs, train a network, validate it at your site."""


@sct.command()
@click.argument("source", type=_FOLDER)
@click.argument("output", type=_NEW)
@click.option("--count", default=4, show_default=True, help="Pairs of each CT.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same pairs.")
@_SITE
def simulate(source: Path, output: Path, count: int, seed: int, site: Path | None) -> None:
    """Make training pairs (simulated CBCT, CT) of the CTs in SOURCE.

    SOURCE is a folder of DICOM, searched whole. Each pair draws its own scanner, patient size and
    grid. OUTPUT receives one .npz a pair, without any identifier, and pictures.png to look at.
    """
    from models.training.sct_pictures import draw_pairs  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.training_images import (  # noqa: PLC0415 - see the module
        simulated,
    )

    shown: list[Pair] = []
    for pair in simulated(source, output, count, seed, _scanner(site), click.echo):
        shown = [*shown, pair][:4]
    if not shown:
        click.echo("no CT series that could be read", err=True)
        click.get_current_context().exit(Exit.FAILED)
    draw_pairs(output / "pictures.png", shown)
    click.echo(f"written to {output}; look at pictures.png before you train")


@sct.command("fit-simulator")
@click.argument("cbcts", type=_FOLDER)
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--region",
    type=click.Choice(["pelvis", "abdomen", "thorax", "head"]),
    default="pelvis",
    show_default=True,
    help="What the CBCTs show.",
)
@click.option("--seed", default=1, show_default=True)
def fit_simulator(cbcts: Path, output: Path, region: str, seed: int) -> None:
    """Measure the site's own CBCTS; write the ranges that `simulate --site` draws from.

    CBCTS is a folder of DICOM, searched whole: 20 patients or more, of one protocol. No truth is
    needed. Noise, its grain, cupping, shading, tissue levels and sharpness are measured and turned
    into settings of the simulator; the file holds both and says how sure each setting is. Takes
    minutes: it simulates patients with the pixels of your CBCTs.
    """
    from models.training.sct_traits import UNITS  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.fit import USUAL_IMAGES, fitted, look  # noqa: PLC0415 - see the module

    try:
        found = fitted(look(cbcts, click.echo), region, seed=seed)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    output.write_text(found.model_dump_json(indent=1) + "\n")
    traits = [(name, unit, *found.found[name]) for name, unit in UNITS.items()]
    for line in table(("trait", "unit", "10 %", "50 %", "90 %"), traits):
        click.echo(line)
    settings = [(n, *found.ranges[n], found.uncertainty[n]) for n in found.ranges]
    for line in table(("setting", "from", "to", "unsure by (SD)"), settings):
        click.echo(line)
    if found.images < USUAL_IMAGES:
        click.echo(f"only {found.images} CBCTs: {USUAL_IMAGES} show better how they vary")
    click.echo(f"written to {output}; use it as --site of simulate and train")


@sct.command()
@click.argument("source", type=_FOLDER)
@click.argument("output", type=_NEW)
@click.option(
    "--mode",
    type=click.Choice(["sim", "pix2pix", "cyclegan", *_QUALITY]),
    default="sim",
    show_default=True,
    help="sim: CTs, simulated. pix2pix: CBCT with its CT. cyclegan: CBCT and CT of anybody. "
    "noise-reduction, super-resolution: CTs, made noisy or thick, for `image_quality`.",
)
@click.option("--minutes", type=click.FloatRange(min=0), default=60.0, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), help="A budget in steps instead: repeatable.")
@click.option("--seed", default=1, show_default=True)
@click.option("--start", help="Pack to start from: a name or a folder. cyclegan needs one.")
@click.option("--count", default=4, show_default=True, help="Pairs simulated of each CT.")
@_SITE
@click.option("--threads", default=2, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--name", default="sct-site", show_default=True, help="Name of the new pack.")
def train(  # noqa: PLR0913, PLR0917 (a command line)
    source: Path,
    output: Path,
    mode: str,
    minutes: float,
    steps: int | None,
    seed: int,
    start: str | None,
    count: int,
    site: Path | None,
    threads: int,
    device: str,
    name: str,
) -> None:
    """Train a network on the images in SOURCE; write a model pack.

    SOURCE holds DICOM, or files of `rtnode sct simulate`. For sim any folder of CTs will do:
    their simulated pairs are kept in OUTPUT/pairs. So for noise-reduction and super-resolution,
    which take no --start, --site and --device. For pix2pix and cyclegan the layout is that of
    `rtnode sct validate`: folders named cbct/, ct/ and planning/, in one case or in many.

    OUTPUT receives the state (run the command again to go on), losses.csv, losses.png,
    samples.png and pack/. Every fifth image is held out for measuring. Nothing is switched on.
    """
    if importlib.util.find_spec("onnx") is None:
        message = "writing a pack needs the package onnx: pip install onnx"
        raise click.ClickException(message)
    from models.training.loop import Budget  # noqa: PLC0415 - see the module
    from models.training.sct_site import Order, train_site  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.training_images import (  # noqa: PLC0415 - see the module
        training_images,
    )

    order = Order(
        mode=mode,
        budget=Budget(minutes=None if steps else minutes, steps=steps),
        seed=seed,
        start=None if start is None else PACKS / start,
        threads=threads,
        device=device,
        name=name,
    )
    try:
        if mode in _QUALITY:
            pack = _train_quality(source, output, order)
        else:
            images = training_images(
                source,
                mode,
                cache=output / "pairs",
                count=count,
                seed=seed,
                site=_scanner(site),
                tell=click.echo,
            )
            pack = train_site(images.pairs, output, order, click.echo, cts=images.cts)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo((pack / "CARD.md").read_text())
    click.echo(f"written to {pack}; install it with `rtnode models install {pack}`")


@sct.command()
@click.argument("cases", type=_FOLDER)
@click.argument("report", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--pack", "name", default="sct-pelvis", show_default=True)
@click.option("--signed-by", required=True, help="Who answers for the result.")
def validate(cases: Path, report: Path, name: str, signed_by: str) -> None:
    """Measure the network on the site's own CASES; write the report that switches it on.

    CASES holds a folder for each case with cbct/ and ct/ (a CT of the same day, in DICOM) and,
    where there are, planning/ and reg/. The report is sealed; name it in the route's settings as
    validation_report. The exit code is 1 when the network was not accepted.
    """
    from pipelines.synthetic_ct.learned import open_pack  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.site import measure  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.validation import (  # noqa: PLC0415 - see the module
        Criteria,
        ValidationReport,
        judge,
    )

    results = []
    try:
        learned = open_pack(name)
        for case in sorted(p for p in cases.iterdir() if p.is_dir()):
            try:
                results.append(measure(case, learned))
                click.echo(f"{case.name}: {results[-1].verdict}", err=True)
            except PipelineError as refused:
                click.echo(f"{case.name} was left out: {refused}", err=True)
    except PipelineError as refused:
        raise click.ClickException(str(refused)) from refused
    criteria = Criteria()
    reasons = judge(tuple(results), criteria)
    made = ValidationReport(
        pack=learned.pack.label,
        pack_sha256=learned.pack.sha256,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        signed_by=signed_by,
        criteria=criteria,
        pairs=tuple(results),
        accepted=not reasons,
        reasons=reasons,
    ).sealed()
    report.write_text(made.model_dump_json(indent=1) + "\n")
    rows = [
        (p.name, p.raw_mae, p.classical_mae, p.network_mae, p.network_me, p.path_p95_mm, p.verdict)
        for p in results
    ]
    head = ("case", "raw MAE", "classical", "network", "ME", "path p95 mm", "gates")
    for line in table(head, rows) if rows else ["no case could be measured"]:
        click.echo(line)
    for reason in reasons:
        click.echo(f"not accepted: {reason}")
    if reasons:
        click.get_current_context().exit(Exit.FAILED)
    click.echo(f"accepted; set validation_report: {report.resolve()}")


@sct.command()
@click.argument("output", type=_NEW)
@click.option("--cases", type=_FOLDER, help="Folder of cases as for validate; default phantoms.")
@click.option("--count", default=2, show_default=True, type=click.IntRange(min=1),
              help="Phantoms.")  # fmt: skip
@click.option("--pack", "name", default="sct-pelvis", show_default=True)
def reproduce(output: Path, cases: Path | None, count: int, name: str) -> None:
    """Measure the claims of the founding research again; write a page to OUTPUT.

    Anatomy preserved, histogram bimodal, the deformable registration of the planning CT better and
    steadier on the synthetic CT. Procedural pelves need no data (about a minute each). The exit
    code is 1 when a claim does not hold.
    """
    from pipelines.synthetic_ct import reproduce as claims  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.learned import open_pack  # noqa: PLC0415 - see the module

    try:
        learned = open_pack(name)
    except PipelineError as refused:
        raise click.ClickException(str(refused)) from refused
    found = []
    for subject in claims.phantoms(count) if cases is None else claims.cases(cases):
        if isinstance(subject, str):
            click.echo(subject, err=True)
            continue
        found.append(claims.measure(subject, learned))
        click.echo(f"{subject.name}: measured", err=True)
    if not found:
        raise click.ClickException("no case could be measured")
    source = "Procedural pelves, simulated CBCT" if cases is None else "Cases of the site"
    page = claims.write_claims(output, found, learned, source)
    mean = claims.means(found)
    rows = [
        (
            limit.measure,
            f"{mean[key]:.3g}",
            limit.words,
            "holds" if limit.holds(mean[key]) else "FAILS",
        )
        for key, limit in claims.CLAIMS.items()
        if key in mean
    ]
    for line in table(("measure", "mean", "limit", ""), rows):
        click.echo(line)
    click.echo(f"written to {page}")
    if any(row[-1] == "FAILS" for row in rows):
        click.get_current_context().exit(Exit.FAILED)


def _train_quality(source: Path, output: Path, order: "Order") -> Path:
    """Train a network of `image_quality` on the CTs below `source`; return the pack."""
    from pipelines.image_quality.training import train_site  # noqa: PLC0415 - see the module
    from pipelines.synthetic_ct.site import read_cts  # noqa: PLC0415 - see the module

    cts = []
    for ct in read_cts(source):
        if isinstance(ct, str):
            click.echo(ct)
        else:
            cts.append(ct)
    return train_site(
        cts,
        order.mode,
        output,
        order.budget,
        seed=order.seed,
        threads=order.threads,
        name=order.name,
        tell=click.echo,
    )


def _scanner(path: Path | None) -> "SiteScanner | None":
    """Return the scanner of a file of `fit-simulator`."""
    from models.training.sct_fit import read_site  # noqa: PLC0415 - see the module

    try:
        return None if path is None else read_site(path)
    except ValueError as error:
        raise click.ClickException(f"{path} is no file of fit-simulator") from error
