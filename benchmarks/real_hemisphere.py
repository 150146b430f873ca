"""A real hemisphere in 3-D: its sulci by name, and where it departs once one of them is erased.

Called by `pictures.py`. Sulci are named by an atlas. The fold that holds most of the central sulcus
is erased with its junctions, and `void`, fitted on all other people of the cohort, looks for what
is missing; its heaviest region is lit up, wherever it lies. It is compared at 2 mm and drawn at
1 mm.
"""

from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.report.brain_page_figures import STYLE
from foldnorm.pipeline.report.hemisphere import Glow, Hemisphere
from foldnorm.pipeline.report.hemisphere_figure import EVIDENCE, part_to_draw, write_names
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.scoring.map_scores import component_masses, label_components
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration.deletion import Deletion, apply_deletion
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of
from foldnorm.preprocessing.cohort.colours import many_colours
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

ERASED = "central"
# What names of BrainVISA begin with, and what is written: the same sulcus by its usual name.
USUAL = {
    "S.C.": "central", "S.Pe.C.": "precentral", "S.Po.C.": "postcentral",
    "F.I.P.Po.C.": "postcentral", "F.I.P.": "intraparietal", "F.C.L.": "lateral fissure",
    "S.F.sup": "superior frontal", "S.F.inf": "inferior frontal",
    "S.F.inter": "intermediate frontal", "S.T.s.": "superior temporal",
    "S.T.i.": "inferior temporal", "S.O.T.": "occipitotemporal", "S.Or.": "orbital",
    "S.F.marginal": "frontomarginal", "OCCIPITAL": "lateral occipital", "S.GSM": "supramarginal",
    "S.Pa.": "superior parietal",
}  # fmt: skip
PIXEL = 0.28  # mm
LETTERS = 7.5  # points
DPI = 200


def hemisphere_picture(coarse: Path, fine: Path, atlas: Path, key: str, out: Path) -> None:
    """Draw both views into a file.

    Args:
        coarse: cohort of 2 mm.
        fine: the same brains at 1 mm.
        atlas: of sulci.
        key: of the hemisphere.
        out: PNG.
    """
    brains, drawn = Cohort.open(coarse), Cohort.open(fine)
    index = drawn.keys().index(key)
    labels, names = usual_names(drawn, index, SulcusAtlas.open(atlas))
    before = np.array(drawn.volumes[index])
    central = labels == names.index(ERASED)
    fold = int(np.bincount(np.array(drawn.folds[index])[central])[1:].argmax()) + 1
    after = without(drawn, index, fold)
    z, threshold = departure(brains, brains.keys().index(key), fold)
    region = on_grid(z, brains.affine, drawn.affine, before.shape)
    gone = (before != after)[region > threshold].sum() / (before != after).sum()
    print(f"{key}: fold {fold}, z up to {z.max():.1f}, {gone:.0%} of the fold in the region")
    scale = Normalize(threshold, float(z.max()))
    colours = matplotlib.colormaps[EVIDENCE]
    hemi, size = drawn.rows[index]["hemi"], drawn.voxel_size
    around = part_to_draw(before)
    before, after, labels, region = (own[around] for own in (before, after, labels, region))
    shown = [
        Hemisphere(before == 1, before == 2, size, hemi, labels=labels,
                   colours=many_colours(len(names) - 1)[1:-1]),
        Hemisphere(after == 1, after == 2, size, hemi, glows=[
            Glow(region, threshold, lambda values: 255 * colours(scale(values))[:, :3])
        ]),
    ]  # fmt: skip
    side = "left" if hemi == "L" else "right"
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(6.6, 2.5), layout="constrained")
        for n, (own, hemisphere) in enumerate(zip(axes, shown, strict=True)):
            (view,) = hemisphere.views([side], PIXEL)
            view.show(own, scale_bar=n == 0, size=LETTERS)
            write_names(own, view, names)
        axes[0].set_title("Sulci, named by an atlas", fontsize=LETTERS)
        axes[1].set_title(f"Its {ERASED} sulcus erased, and found", fontsize=LETTERS)
        bar = figure.colorbar(ScalarMappable(scale, colours), ax=axes[1], shrink=0.5, aspect=18,
                              pad=0.01)  # fmt: skip
        bar.set_label("standard deviations", fontsize=0.8 * LETTERS)
        bar.outline.set_linewidth(0.3)
        figure.savefig(out, dpi=DPI)
        plt.close(figure)


def usual_names(
    cohort: Cohort, index: int, atlas: SulcusAtlas
) -> tuple[NDArray[np.int64], list[str]]:
    """Name the voxels of a hemisphere.

    Returns:
        (I, J, K), number of each voxel's sulcus, and names by number; the first is empty, and for
        all sulci that `USUAL` does not have.
    """
    brain = cohort[index]
    found = AtlasLabeller(atlas, cohort).name(brain)
    names = ["", *dict.fromkeys(USUAL.values())]
    usual = np.array([0, *(names.index(_usual(name)) for name in atlas.names)])
    labels = np.zeros(brain.volume.shape, dtype=np.int64)
    labels[cohort.scheme.foreground(brain.volume)] = usual[found.probabilities.argmax(axis=0)]
    return labels, names


def _usual(name: str) -> str:
    return next((usual for start, usual in USUAL.items() if name.startswith(start)), "")


def without(cohort: Cohort, index: int, fold: int) -> NDArray[np.uint8]:
    """Return a hemisphere without a fold, (I, J, K)."""
    folds, volume = np.array(cohort.folds[index]), np.array(cohort.volumes[index])
    deletion = Deletion("fold", label=fold)
    return apply_deletion(volume, deletion, cohort.scheme, folds=folds, has_hull=cohort.has_hull)


def departure(cohort: Cohort, index: int, fold: int) -> tuple[NDArray[np.float32], float]:
    """Compare a hemisphere without a fold with those of all other people.

    Returns:
        (I, J, K), z within the heaviest region, 0 elsewhere; and the threshold of regions.
    """
    family = family_of(cohort.rows[index])
    others = [n for n, row in enumerate(cohort.rows) if family_of(row) != family]
    void = VoidScores(cohort.scheme, cohort.voxel_size).fit(cohort.view(others))
    print(f"compared with {len(others)} hemispheres")
    ((z,),) = void.maps([cohort.brain(index, without(cohort, index, fold))])
    components, count = label_components(z, void.THRESHOLD)
    heaviest = int(component_masses(z, components, count, void.THRESHOLD).argmax()) + 1
    return np.where(components == heaviest, z, 0).astype(np.float32), void.THRESHOLD


def on_grid(
    values: NDArray[np.float32],
    affine: NDArray[np.float64],
    target: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float32]:
    """Bring values to another grid of the same space, between voxels."""
    way = np.linalg.inv(affine) @ target
    return np.asarray(
        ndimage.affine_transform(values, way[:3, :3], way[:3, 3], output_shape=shape, order=1)
    )
