"""Pictures of README and of pages: of phantoms, and one of a real hemisphere.

    python benchmarks/pictures.py OUT [--real COHORT_2MM COHORT_1MM --atlas ATLAS --brain KEY]

OUT keeps the phantoms; what is there is not made again. Writes

    docs/pictures/floor.png   the void map of a phantom that lacks a fold, with two floors
    docs/pictures/learning_curve.png  AUROC and hits by the number of hemispheres trained on, of
                              benchmarks/results/learning_curve.json
    docs/pictures/hemisphere.png  with --real: a hemisphere with its sulci by name, and what `void`
                              finds in it once its central sulcus is erased; see `real_hemisphere`
"""

import argparse
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from real_cohort import run
from real_hemisphere import hemisphere_picture

from foldnorm.pipeline.report.brain_page_figures import DPI, STYLE
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.cohort_files import write_participants
from foldnorm.preprocessing.core.files import read_json

PICTURES = Path(__file__).parents[1] / "docs/pictures"
CURVE = Path(__file__).parent / "results" / "learning_curve.json"
SIZES = {"200": "200–500 mm²", "500": "500–800 mm²", "800": "over 800 mm²"}
PEOPLE = 41  # the last of whom lacks a fold
SIZE = "900-940"  # mm² of it: its central sulcus
FLOORS = 0.01, 1.0  # mm, of a map that is not smoothed
COLOURS = 256  # of a PNG


def make(out: Path) -> tuple[Cohort, Cohort]:
    """Draw phantoms, and take a fold out of one: healthy ones, and that one."""
    healthy, patient = out / "healthy", out / "patient"
    if not Cohort.is_in(patient):
        run("phantom", "-o", out / "source", "--subjects", PEOPLE, "--voxel-size", 1.5, "--quiet")
        run("preprocess", out / "source", "-o", out / "all", "--voxel-size", 2, "--thin", "--quiet")
        cohort = Cohort.open(out / "all")
        *others, last = [row["participant_id"] for row in cohort.rows]
        for folder, chosen in ((healthy, others), (out / "intact", [last])):
            run("preprocess", out / "source", "-o", folder, "--layout-from", out / "all",
                "--participant-label", *chosen, "--quiet")  # fmt: skip
        run("alter", out / "intact", "-o", patient, "--size", SIZE, "--quiet")
        rows = [{**row, "split": "train"} for row in Cohort.open(healthy).rows]
        write_participants(healthy, rows)
    return Cohort.open(healthy), Cohort.open(patient)


def floor_picture(healthy: Cohort, patient: Cohort, intact: Cohort) -> None:
    """Largest z along the line of sight from the side, with either floor, and where it is."""
    index = intact.keys().index(row_key(patient.rows[0]))
    erased = (np.array(intact.volumes[index]) == 2) & (np.array(patient.volumes[0]) != 2)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.4, 3.1), constrained_layout=True)
        for own, floor in zip(axes, FLOORS, strict=True):
            void = VoidScores(healthy.scheme, healthy.voxel_size)
            void.normative = NormativeMap(floor)
            void.fit(healthy.view(healthy.indices()))
            ((z,),) = void.maps(patient.brains([0]))
            peak = np.unravel_index(int(z.argmax()), z.shape)
            seen = np.ma.masked_less(z.max(axis=0), 0.5).T
            outline = np.any(np.array(patient.volumes[0]) > 0, axis=0).T
            own.contour(outline, [0.5], colors="#8a94a3", linewidths=0.6)
            shown = own.imshow(seen, cmap="YlOrRd", origin="lower", vmin=0, vmax=float(z.max()))
            own.contour(erased.any(axis=0).T, [0.5], colors="#18427a", linewidths=1.1)
            own.plot(peak[1], peak[2], "+", color="black", markersize=11, markeredgewidth=1.4)
            where = "where the fold was" if _near(erased, peak) else "elsewhere"
            own.set_title(
                f"floor {floor:g} mm: the largest z (+) is {z.max():.1f}, {where}", fontsize=7
            )
            own.set_axis_off()
            bar = figure.colorbar(shown, ax=own, orientation="horizontal", shrink=0.6, pad=0.03)
            bar.ax.tick_params(labelsize=6, length=2, pad=1)
            bar.set_label("z, largest along the line of sight", fontsize=6)
        figure.savefig(PICTURES / "floor.png", dpi=DPI)
        plt.close(figure)
    _shrink(PICTURES / "floor.png")


def _near(erased: np.ndarray, place: tuple[np.intp, ...]) -> bool:
    """Say if a voxel is at most 2 voxels from one that was erased."""
    return bool(np.linalg.norm(np.argwhere(erased) - np.array(place), axis=1).min() <= 2)


def learning_curve_picture() -> None:
    """Draw AUROC and hits of erased folds by the number of hemispheres trained on."""
    record = read_json(CURVE)
    figures, every = record["figures"], record["figures"]["hemispheres"]
    numbers = sorted({int(n) for key in figures for n in re.findall(r"-of-(\d+)$", key)})
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.8), constrained_layout=True, sharey=True)
        for own, what, title in zip(axes, ("auroc", "hit"), ("AUROC", "hits"), strict=True):
            for size, label in SIZES.items():
                keys = [f"restorer_{what}_{size}-of-{n}" for n in numbers]
                keys.append(f"restorer_{what}_{size}")
                values = np.array([figures[key] for key in keys])
                low, high = (np.array([figures[f"{k}_{e}"] for k in keys]) for e in ("low", "high"))
                own.errorbar(
                    [*numbers, every], values, (values - low, high - values),
                    marker="o", markersize=3, linewidth=1, elinewidth=0.6, label=label,
                )  # fmt: skip
            own.set_xscale("log", base=2)
            own.set_xticks([*numbers, every], [*map(str, numbers), str(every)], fontsize=6)
            own.set_xlabel("hemispheres trained on", fontsize=7)
            own.set_title(title, fontsize=7)
            own.tick_params(labelsize=6, length=2)
        axes[0].legend(fontsize=6, frameon=False)
        figure.savefig(PICTURES / "learning_curve.png", dpi=DPI)
        plt.close(figure)
    _shrink(PICTURES / "learning_curve.png")


def _shrink(path: Path) -> None:
    """Keep few colours: a README is read over slow lines too."""
    Image.open(path).convert("RGB").quantize(COLOURS, kmeans=1).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that keeps everything")
    parser.add_argument("--real", type=Path, nargs=2, metavar=("COHORT_2MM", "COHORT_1MM"),
                        help="the same real brains in MNI space at two voxel sizes")  # fmt: skip
    parser.add_argument("--atlas", type=Path, help="of sulci, of foldnorm atlas")
    parser.add_argument("--brain", metavar="KEY", help="such as sub-01_hemi-L, of those cohorts")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    PICTURES.mkdir(exist_ok=True)
    if arguments.real:
        if not (arguments.atlas and arguments.brain):
            parser.error("--real needs --atlas and --brain")
        path = PICTURES / "hemisphere.png"
        hemisphere_picture(*arguments.real, arguments.atlas, arguments.brain, path)
        _shrink(path)
        return
    healthy, patient = make(out)
    floor_picture(healthy, patient, Cohort.open(out / "intact"))
    if CURVE.is_file():
        learning_curve_picture()


if __name__ == "__main__":
    main()
