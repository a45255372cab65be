"""Make an image quality pack of a run of `models.training.quality`, measured on the hold-out.

python benchmarks/image_quality_packs.py --archive ../shared/data/train_sts_ct.tar.xz
    --task noise-reduction --run build/quality-noise --out models/packs/ct-noise
"""

import argparse
from pathlib import Path

from models.training.quality import CONFIGS
from models.training.quality_data import PHANTOMS, evaluation_images
from models.training.sct_data import HELD_OUT
from models.training.sct_pack import STS, Description
from pipelines.image_quality.training import TITLES, pack_of


def main() -> None:
    """Measure and write the pack."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--task", choices=sorted(CONFIGS), required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--version", default="1.0.0")
    args = parser.parse_args()
    described = Description(
        id=args.out.name,
        version=args.version,
        title=TITLES[args.task],
        body_region="thigh and pelvis; procedural thorax, abdomen, head",
        data=(STS,),
        notes=(
            f"{PHANTOMS} procedural patients beside them. Never trained on: "
            f"{', '.join(sorted(HELD_OUT))}. The CTs are crops of PET/CT quality with slices 3.27 "
            "mm apart. No real cone-beam CT and no real thin slices were seen. Attribution: "
            "Vallieres et al., Phys Med Biol 60 (2015) 5471; Clark et al., J Digit Imaging 26 "
            "(2013) 1045 (TCIA).",
        ),
    )
    held = evaluation_images(args.archive)
    pack_of(args.run, args.out, described, args.task, held, lambda t: print(t, flush=True))


if __name__ == "__main__":
    main()
