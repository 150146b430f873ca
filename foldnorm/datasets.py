"""Data to play with: phantoms, drawn by a program."""

import tempfile
from pathlib import Path
from typing import Any

from foldnorm.api import preprocess
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.phantom.tree import PhantomOptions, parse_variant, write_phantoms

_KEPT: list[tempfile.TemporaryDirectory[str]] = []  # removed when Python leaves

__all__ = ["phantoms"]


def phantoms(
    n: int = 20,
    folder: str | Path | None = None,
    *,
    voxel_size: float = 4.0,
    pad: str = "multiple:8",
    seed: int = 0,
    variant: str | None = None,
    **options: Any,
) -> Cohort:
    """Draw phantom hemispheres and make a cohort of them. They are no brains.

    They have named sulci and fold labels, and vary from one to the next; the same seed gives the
    same bytes. They are drawn at half the voxel size.

    Args:
        n: how many.
        folder: for ``source``, the tree that they are drawn into, and ``cohort``; None: a temporary
            one that is removed when Python leaves.
        voxel_size: of the cohort, mm.
        pad: of the cohort's box.
        seed: of what is drawn.
        variant: departure from healthy folding that each of them gets, as ``absent:central``.
        options: of `foldnorm.preprocess`, such as ``split_fractions=(0.5, 0.25, 0.25)``.

    Returns:
        The cohort.

    Raises:
        InputError: there is no such variant or option.
    """
    if folder is None:
        _KEPT.append(tempfile.TemporaryDirectory(prefix="foldnorm-phantoms-"))
        folder = _KEPT[-1].name
    drawn = PhantomOptions(
        n,
        seed,
        voxel_size=voxel_size / 2,
        variant=parse_variant(variant) if variant else None,
        quiet=True,
    )
    write_phantoms(Path(folder) / "source", drawn)
    return preprocess(
        Path(folder) / "source",
        Path(folder) / "cohort",
        voxel_size=voxel_size,
        pad=pad,
        quiet=True,
        **options,
    )
