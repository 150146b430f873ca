"""Write phantoms as a source tree that `preprocess` reads like one of Morphologist."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_text, write_tsv
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.io.fold_sidecar import FOLD_NAMES
from foldnorm.preprocessing.io.scan import PARTICIPANTS
from foldnorm.preprocessing.io.source_volume import (
    FOLDS_STEM,
    REGISTRATION_FOLDER,
    SEGMENTATION_FOLDER,
    TRANSFORM_NAME,
)
from foldnorm.preprocessing.io.volumes import write_labels
from foldnorm.preprocessing.phantom.anatomy import BY_NAME, fold_names, phantom_to_mni
from foldnorm.preprocessing.phantom.folds import VARIANT_KINDS, Variant
from foldnorm.preprocessing.phantom.hemisphere import draw_hemisphere
from foldnorm.preprocessing.spatial.crop import shape_of
from foldnorm.preprocessing.spatial.space import write_world_to_mni

NOTICE = """These are PHANTOMS: label volumes drawn by a program (foldnorm phantom), not brains.
Skeletons hold 0 inside, 11 outside, 60 skeleton; fold labels are named in fold_names.tsv;
grey-white volumes hold 0, 100, 200.
"""


@dataclass(frozen=True)
class PhantomOptions:
    """Options of `write_phantoms`.

    Attributes:
        subjects: how many.
        seed: of the cohort.
        first: number of the first subject; another range gives other subjects.
        voxel_size: mm.
        hemis: sides.
        variant: a departure from healthy folding that every subject gets.
        n_procs: processes.
        overwrite: draw again what is there.
        quiet: no progress bar.
    """

    subjects: int
    seed: int = 0
    first: int = 0
    voxel_size: float = 1.0
    hemis: tuple[str, ...] = ("L",)
    variant: Variant | None = None
    n_procs: int = 1
    overwrite: bool = False
    quiet: bool = False


def parse_variant(text: str) -> Variant:
    """Read ``kind:sulcus``, as in ``absent:central``."""
    kind, _, name = text.partition(":")
    if kind not in VARIANT_KINDS or name not in BY_NAME:
        raise InputError(
            f"variant: expected one of {', '.join(VARIANT_KINDS)}, a colon and a sulcus "
            f"({', '.join(BY_NAME)}); got {text!r}"
        )
    return Variant(kind, BY_NAME[name].label)


def write_phantoms(out: Path, options: PhantomOptions) -> None:
    """Write the tree: volumes, ways to MNI space, tables of participants and names, ``README``."""
    if options.subjects < 1:
        raise InputError(f"phantom: expected at least 1 subject, got {options.subjects}")
    numbers = range(options.first, options.first + options.subjects)
    tasks = [(number, hemi) for number in numbers for hemi in options.hemis]
    written = isolated_map(partial(_write_one, out, options), tasks, options.n_procs)
    hidden = options.quiet or not sys.stderr.isatty()
    for outcome in tqdm(written, desc="phantom", total=len(tasks), unit="volume", disable=hidden):
        if outcome.error is not None:
            raise outcome.error
    names = [{"label": label, "name": name} for label, name in fold_names().items()]
    write_tsv(out / FOLD_NAMES, names, ("label", "name"))
    kind = "healthy"
    if options.variant is not None:
        kind = f"{options.variant.kind}:{fold_names()[options.variant.label]}"
    rows = [
        {"participant_id": _name(n), "phantom": "true", "variant": kind, "seed": options.seed}
        for n in numbers
    ]
    write_tsv(out / PARTICIPANTS, rows, ("participant_id", "phantom", "variant", "seed"))
    write_text(out / "README", NOTICE)


def _name(number: int) -> str:
    return f"phantom{number:05d}"


def _write_one(out: Path, options: PhantomOptions, task: tuple[int, str]) -> None:
    number, hemi = task
    name = _name(number)
    folder = out / name / SEGMENTATION_FOLDER
    transform = out / name / REGISTRATION_FOLDER / TRANSFORM_NAME.format(hemi, name)
    paths = [
        folder / f"{hemi}{stem}_{name}.nii.gz" for stem in (FOLDS_STEM, "grey_white", "skeleton")
    ]
    if not options.overwrite and all(path.is_file() for path in (*paths, transform)):
        return
    hemisphere = draw_hemisphere(
        number,
        seed=options.seed,
        voxel_size=options.voxel_size,
        hemi=hemi,
        variant=options.variant,
    )
    shape = shape_of(hemisphere.skeleton)
    write_world_to_mni(transform, phantom_to_mni(hemi), hemisphere.affine, shape)
    volumes = (hemisphere.folds, hemisphere.grey_white, hemisphere.skeleton)
    for path, volume in zip(paths, volumes, strict=True):
        write_labels(path, volume, hemisphere.affine, description="foldnorm PHANTOM, not a brain")
