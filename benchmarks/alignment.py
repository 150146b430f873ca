"""Alignment to MNI space: by deep structures, to a template, and against Morphologist's transforms.

DATA is a folder with brain_labels (whole-brain maps with FreeSurfer's numbers) and
morphologist/{archi/001,hcp/100206}. What is printed: how far deep structures lie from their places
after the fit, and one that was left out of it; how far apart the two ways put each of the maps,
the template being made of the other maps; and how far from Morphologist's own transforms the
template puts its hemispheres (of HCP there is no segmentation: the filled brain is registered).
Ends with one line of JSON, in mm, which is also written to OUT.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from figures import write_figures
from scipy import ndimage

from foldnorm.preprocessing.io.sources import Source
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.skeletons import alignment
from foldnorm.preprocessing.skeletons.alignment import (
    STRUCTURES,
    Template,
    align_to_structures,
    align_to_template,
    read_template,
    register,
)
from foldnorm.preprocessing.skeletons.segmentation import hemispheres
from foldnorm.preprocessing.skeletons.skeletons import SkeletoniseOptions, skeletonise_sources
from foldnorm.preprocessing.skeletons.template import make_template
from foldnorm.preprocessing.spatial.space import voxel_to_mni

HULL_VOXELS = 2  # of a Morphologist skeleton, from its outside to the brain
EVERY = 50  # voxels
WHITE = 2  # what a structure that is left out becomes


def apart(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Mean distance in mm between where two voxel-to-MNI matrices put the voxels of a mask."""
    voxels = np.argwhere(mask)[::EVERY]
    places = np.concatenate([voxels, np.ones((len(voxels), 1))], axis=1)
    return float(np.linalg.norm((places @ (first - second).T)[:, :3], axis=1).mean())


def left_out(volume: LabelVolume) -> float:
    """Mean distance of structures, both sides of one at a time left out of the fit, mm."""
    found = []
    for pair, place in STRUCTURES.items():
        hidden = np.where(np.isin(volume.data, pair), WHITE, volume.data)
        fit = align_to_structures(replace(volume, data=hidden))
        assert fit is not None
        for number, sign in zip(pair, (1, -1), strict=True):
            centre = [*np.argwhere(volume.data == number).mean(axis=0), 1.0]
            reached = (fit.world_to_mni @ volume.affine @ centre)[:3]
            found.append(np.linalg.norm(reached - [sign * place[0], place[1], place[2]]))
    return float(np.mean(found))


def template_of(tree: Path, names: list[str], out: Path) -> Template:
    make_template([Source(tree / name) for name in names], out)
    return read_template(out)


def filled_brain(skeleton: LabelVolume) -> np.ndarray:
    return ndimage.binary_erosion(skeleton.data != 11, iterations=HULL_VOXELS)


def against_morphologist(data: Path, template: Template) -> dict[str, float]:
    figures = {}
    for side in "LR":
        archi = data / "morphologist/archi/001/t1mri/default_acquisition/default_analysis"
        volume = read_labels(archi / f"segmentation/{side}grey_white_001.nii.gz")
        (graph,) = archi.rglob(f"{side}*.arg")
        theirs = voxel_to_mni(graph, volume.data.shape, volume.affine, volume.voxel_size)
        found = hemispheres(volume, side=side)
        ours = align_to_template(found, volume.affine, template, volume.path).world_to_mni
        figures[f"archi_{side}"] = apart(ours @ volume.affine, theirs, volume.data > 0)
        hcp = data / "morphologist/hcp/100206"
        volume = read_labels(next(hcp.rglob(f"{side}skeleton_100206.nii.gz")))
        transform = next(hcp.rglob("*_TO_Talairach-MNI.trm"))
        theirs = voxel_to_mni(transform, volume.data.shape, volume.affine, volume.voxel_size)
        brain = filled_brain(volume)
        expected = alignment.closed(template.tissue_of_side(side) > 0, 1.0).astype(np.float32)
        back = register(expected, template.affine, brain.astype(np.float32), volume.affine)
        figures[f"hcp_{side}"] = apart(np.linalg.inv(back) @ volume.affine, theirs, brain)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("out", type=Path, metavar="OUT", help="JSON")
    arguments = parser.parse_args()
    data = arguments.data
    residuals, outside, ways, seconds = [], [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        options = SkeletoniseOptions(n_procs=os.cpu_count() or 1, quiet=True)
        skeletonise_sources([Source(data / "brain_labels")], tree, options)
        names = sorted(path.name for path in tree.iterdir() if path.is_dir())
        for name, path in zip(names, sorted((data / "brain_labels").glob("*.gz")), strict=True):
            volume = read_labels(path)
            begin = time.perf_counter()
            fit = align_to_structures(volume)
            seconds.append(time.perf_counter() - begin)
            assert fit is not None
            residuals.append(fit.record["ResidualMm"])
            outside.append(left_out(volume))
            others = template_of(tree, [n for n in names if n != name], Path(scratch) / "t.nii.gz")
            found = hemispheres(volume)
            other = align_to_template(found, volume.affine, others, path)
            brain = np.isin(volume.data, (2, 3, 41, 42))
            two = [a.world_to_mni @ volume.affine for a in (fit, other)]
            ways.append(apart(two[0], two[1], brain))
            print(
                f"{path.name}: structures {residuals[-1]:.2f} mm, left out {outside[-1]:.2f}; "
                f"two ways {ways[-1]:.1f} apart, overlap {other.record['Overlap']}",
                flush=True,
            )
        template = template_of(tree, names, Path(scratch) / "t.nii.gz")
        morphologist = against_morphologist(data, template)
    figures = {
        "residual_mm": float(np.median(residuals)),
        "left_out_mm": float(np.median(outside)),
        "two_ways_mm": float(np.median(ways)),
        "seconds": float(np.median(seconds)),
        **morphologist,
    }
    figures = {name: round(value, 2) for name, value in figures.items()}
    write_figures(arguments.out, figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
