"""Files of a saved scorer: names, what they hold of persons, and whether they belong together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foldnorm.pipeline.artifacts import SCORER
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, REGION_MASK
from foldnorm.preprocessing.cohort.layout import LAYOUT_FOLDER
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.file_names import checked_name
from foldnorm.preprocessing.core.files import read_json, sha256_of, write_bytes

FORMAT = 3  # of a saved scorer; raised when a score of the same name counts something else
MODEL, CALIBRATION, DETECTOR = "model", "calibration", "suitability"
ABOUT = ("method", "precision", "scores", "shape", "fitted_on", "participants", "sha256")
FAMILIES, FOLDS, SULCI = "scores", "healthy_folds", "sulci_by_place"
PERSONAL_DATA = (
    "No volume, name, age or sex of anyone. Sums over healthy brains, and half of the principal "
    "components of their maps (distances to the nearest fold, and what a model says of each "
    "place): mixtures of all, from which someone who has a brain can tell whether it was one of "
    "them; where an atlas names sulci, how far each sulcus of each healthy hemisphere departs "
    "from the others', without a name. Of each calibration brain its scores and hemisphere under "
    "a salted hash of its participant; salted hashes of the participants and families who took "
    "part, which tell someone who knows an identifier whether it is among them; names of sites. "
    "Of a model with a latent space, the code of each training brain, without a name; with a "
    "decoder in model/, a code gives an image of that brain."
)


def is_scorer(folder: Path) -> bool:
    """Return whether a scorer was saved in a folder."""
    return (folder / SCORER).is_file()


def copy_layout(source: Path, out: Path) -> None:
    """Copy how a cohort was prepared: its description, and the mask of its region if it has one."""
    for name in (DESCRIPTION, REGION_MASK):
        if (source / name).is_file():
            write_bytes(out / name, (source / name).read_bytes())
        else:
            (out / name).unlink(missing_ok=True)


def digests_of(folder: Path, about: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of each file of a scorer, by its path from the folder."""
    parts = [
        *(f"{FAMILIES}/{name}" for name in about["scores"]),
        LAYOUT_FOLDER,
        CALIBRATION,
        DETECTOR,
        FOLDS,
        SULCI,
    ]
    parts += [MODEL] if about["precision"] else []
    files = sorted(path for part in parts for path in (folder / part).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def read_about(folder: Path) -> dict[str, Any]:
    """Read a scorer's description of itself, and check that its files were written together.

    Raises:
        InputError: it is of another format, or damaged.
    """
    about = read_json(folder / SCORER)
    if about.get("format") != FORMAT:
        raise InputError(
            f"expected a scorer of format {FORMAT}, got {about.get('format')}; save it again with "
            f"this version of foldnorm: {folder / SCORER}"
        )
    lacking = [name for name in ABOUT if name not in about]
    if lacking:
        raise InputError(f"damaged scorer, it lacks {', '.join(lacking)}: {folder / SCORER}")
    for name, digest in about["sha256"].items():
        for part in name.split("/"):  # no file elsewhere, which may have no end
            checked_name(part, f"{folder / SCORER}: sha256")
        if sha256_of(folder / name) != digest:
            raise InputError(f"damaged scorer, not the file that was saved: {folder / name}")
    return about
