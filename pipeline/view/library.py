"""Contents of the folders that were given to `view`, each read when it is asked for.

Brains, cohorts and models are numbers here: no request names a file.
"""

import importlib
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import CODES, CODES_TABLE, SCORES
from foldnorm.pipeline.view.departures import Departures
from foldnorm.pipeline.view.given import GivenFolders
from foldnorm.pipeline.view.sulci import NamesSulci, above_classes, described, namers
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.pictures import (
    changed_slices,
    class_colours,
    contact_sheet,
    image_slices,
    png,
)
from foldnorm.preprocessing.core.arrays import read_array
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.volumes import nifti_bytes

if TYPE_CHECKING:
    from foldnorm.pipeline.view.models import ViewedModel

MAX_CACHED = 16  # volumes that models made
MAX_ENCODED = 500  # brains, at most, that are encoded to find neighbours; `foldnorm embed` beyond
N_NEIGHBOURS = 5
DIFFERENT = {"lower": 1, "higher": 2}  # classes of a difference map
Volume = NDArray[np.uint8]


class Library:
    """Cohorts, models, scores, names of sulci and codes.

    Args:
        paths: of cohorts, runs, exported models, scores, what `label-sulci` wrote, and codes, in
            any order.
        device: of the models.

    Raises:
        InputError: a folder is none of these, reaches out of itself by a link, or there is no
            cohort.
    """

    def __init__(self, paths: Sequence[Path], device: str = "auto") -> None:
        self.folders = GivenFolders.sort(paths)
        self.cohorts, self.runs = self.folders.cohorts, self.folders.runs
        self.device = device
        self._models = threading.Lock()
        self._made = lru_cache(MAX_CACHED)(self._make)
        self._repaired = lru_cache(MAX_CACHED)(self._repair)
        self._nearest_codes: dict[tuple[int, int], NDArray[np.float32]] = {}
        self._loaded: dict[int, ViewedModel] = {}

    def warm_up(self) -> None:
        """Import torch beside what else goes on, if there is a model: that takes seconds."""
        if self.runs:
            work = partial(importlib.import_module, "foldnorm.pipeline.view.models")
            threading.Thread(target=work, daemon=True).start()

    def contents(self) -> dict[str, Any]:
        """List the cohorts and models that can be chosen."""
        return {
            "cohorts": [
                {
                    "name": cohort.folder.resolve().name,
                    "brains": len(cohort.rows),
                    "phantom": cohort.is_phantom,
                    "images": cohort.holds_images,
                    **({} if cohort.holds_images else _classes_of(cohort.scheme)),
                    "sulci": [described(own) for own in named],
                }
                for cohort, named in zip(self.cohorts, self.sulci, strict=True)
            ],
            "models": [_name_of(run) for run in self.runs],
        }

    def keys(self, cohort: int) -> list[str]:
        """Names of the brains of a cohort."""
        return self.cohorts[cohort].keys()

    def brain(self, cohort: int, brain: int) -> dict[str, Any]:
        """Return the row of a brain, its scores, and the place of its strongest departure."""
        own = self.cohorts[cohort]
        row = own.rows[brain]
        scores = []
        for folder in self.folders.scores.get(own.folder.resolve(), []):
            found = self._scored[folder].get((row["participant_id"], row["hemi"]))
            if found is not None:
                regions = self._departures[folder].regions(row_key(row))
                scores.append({"name": folder.name, **_scores_of(found), "regions": regions})
        own_departures = self._departing(cohort, brain)
        return {
            "facts": {k: v for k, v in row.items() if v},
            "scores": scores,
            "mirrored": row.get("hemi") == "R" and bool(own.preparation.get("mirror_right")),
            "peak": None if own_departures is None else own_departures.peak(row_key(row)),
        }

    def departure(self, cohort: int, brain: int) -> bytes:
        """Return the map of where a brain has fewer folds than healthy ones, as ``.nii.gz``.

        Raises:
            InputError: no folder of scores that was given says so.
        """
        own = self.cohorts[cohort]
        key, found = row_key(own.rows[brain]), self._departing(cohort, brain)
        if found is None:
            raise InputError(f"no scores with maps say where {key} departs")
        self.folders.check_inside(found.path(key))
        return nifti_bytes(found.layer(key), own.affine, "none")

    def _departing(self, cohort: int, brain: int) -> Departures | None:
        """Return the first folder of scores that has a map of a brain."""
        own = self.cohorts[cohort]
        folders = self.folders.scores.get(own.folder.resolve(), [])
        key = row_key(own.rows[brain])
        return next((d for d in map(self._departures.get, folders) if d and d.knows(key)), None)

    @cached_property
    def _departures(self) -> dict[Path, Departures]:
        return {f: Departures(f) for folders in self.folders.scores.values() for f in folders}

    @cached_property
    def _scored(self) -> dict[Path, dict[tuple[str, str], dict[str, str]]]:
        return {
            folder: {(row["participant_id"], row["hemi"]): row for row in read_tsv(folder / SCORES)}
            for folders in self.folders.scores.values()
            for folder in folders
        }

    def volume(self, cohort: int, brain: int) -> bytes:
        """Return a brain as ``.nii.gz``."""
        own = self.cohorts[cohort]
        return nifti_bytes(np.array(own.volumes[brain]), own.affine)

    @cached_property
    def sulci(self) -> list[list[NamesSulci]]:
        """Names of the sulci of each cohort."""
        return [
            namers(own, self.folders.named.get(own.folder.resolve(), [])) for own in self.cohorts
        ]

    def named_volume(self, cohort: int, brain: int, names: int) -> bytes:
        """Return a brain as ``.nii.gz``: above its classes, the numbers of its sulci."""
        own, namer = self.cohorts[cohort], self.sulci[cohort][names]
        self.folders.check_inside(*namer.files(brain))
        volume = above_classes(np.array(own.volumes[brain]), namer.labels(brain), own.scheme)
        return nifti_bytes(volume, own.affine)

    def source(self, cohort: int, brain: int, model: int) -> bytes:
        """Return the input of a model for a brain, as ``.nii.gz``."""
        own = self.cohorts[cohort]
        return nifti_bytes(self._model(model).source(own, brain), own.affine)

    def made(self, cohort: int, brain: int, model: int) -> bytes:
        """Return the output of a model for a brain, as ``.nii.gz``."""
        return nifti_bytes(self._made(cohort, brain, model), self.cohorts[cohort].affine)

    def difference(self, cohort: int, brain: int, model: int) -> bytes:
        """Mark where a model's output is of a lower (1) or higher (2) class than the truth."""
        own = self.cohorts[cohort]
        made, true = self._made(cohort, brain, model), self._true(cohort, brain, model)
        found = np.zeros(made.shape, dtype=np.uint8)
        if true is not None:
            found[made < true] = DIFFERENT["lower"]
            found[made > true] = DIFFERENT["higher"]
        return nifti_bytes(found, own.affine)

    def model(self, cohort: int, model: int) -> dict[str, Any]:
        """Describe a model for a cohort: kind of output, classes, whether the truth is known.

        Raises:
            InputError: the cohort was not prepared as that of the model was.
        """
        own = self._model(model)
        own.check(self.cohorts[cohort])
        if self.cohorts[cohort].holds_images:
            return {"makes": own.makes, "degrades": own.degrades}
        scheme = own.scheme(self.cohorts[cohort])
        source = own.source_scheme(self.cohorts[cohort])
        return {
            "makes": own.makes,
            "from_pair": own.from_pair,
            **_classes_of(scheme),
            "source_names": source.names,
            "source_palette": palette_of(source),
            "compared": own.makes != "translation" or self.cohorts[cohort].pairs is not None,
        }

    def picture(self, cohort: int, brain: int) -> bytes:
        """Return an image as PNG; of a volume, its middle slices."""
        own = self.cohorts[cohort]
        return _as_png(image_slices(own.to_model_input(np.array(own.volumes[brain]))))

    def given(self, cohort: int, brain: int, model: int, degrade: int) -> bytes:
        """Return the image that a model is shown, as PNG; with ``degrade`` 1, degraded first."""
        images = self._repaired(cohort, brain, model, degrade)
        return _as_png(image_slices(images["degraded" if "degraded" in images else "given"]))

    def repaired(self, cohort: int, brain: int, model: int, degrade: int) -> bytes:
        """Return the image that a model has repaired, as PNG."""
        return _as_png(image_slices(self._repaired(cohort, brain, model, degrade)["restored"]))

    def changed(self, cohort: int, brain: int, model: int, degrade: int) -> bytes:
        """Return how a repaired image differs from the true one, or else the given one, as PNG."""
        images = self._repaired(cohort, brain, model, degrade)
        wanted = images["clean" if "clean" in images else "given"]
        return _as_png(changed_slices(wanted, images["restored"]))

    def figures(self, cohort: int, brain: int, model: int, degrade: int) -> dict[str, float]:
        """PSNR, SSIM and IoU of the damage found, of an image that was degraded first."""
        # The model has imported it by now.
        from foldnorm.pipeline.inference.restore import restoration_metrics

        images = self._repaired(cohort, brain, model, degrade)
        return restoration_metrics(images) if "clean" in images else {}

    def neighbours(self, cohort: int, brain: int, model: int) -> list[dict[str, Any]]:
        """Brains of the cohort whose codes lie nearest; none if the model has no latent space.

        Raises:
            InputError: there are too many brains to encode them now.
        """
        own, codes = self.cohorts[cohort], self._codes(cohort, model)
        if codes is None:
            return []
        participant = own.rows[brain]["participant_id"]
        distances = np.linalg.norm(codes - codes[brain], axis=1)
        order = [
            int(n)
            for n in np.argsort(distances, kind="stable")
            if own.rows[n]["participant_id"] != participant
        ]
        keys = own.keys()
        return [
            {"brain": n, "key": keys[n], "distance": float(distances[n])}
            for n in order[:N_NEIGHBOURS]
        ]

    def _codes(self, cohort: int, model: int) -> NDArray[np.float32] | None:
        own, run = self.cohorts[cohort], self.runs[model]
        embedded = self.folders.codes.get((run.resolve(), own.folder.resolve()))
        with self._models:
            known = self._nearest_codes.get((cohort, model))
            if known is not None:
                return known
            if embedded is not None and _is_of_all(embedded, own):
                codes: NDArray[np.float32] = read_array(embedded / CODES)
            elif not self._load(model).encodes:
                return None
            elif len(own.rows) <= MAX_ENCODED:
                codes = self._load(model).codes(own)
            else:
                raise InputError(
                    f"{len(own.rows)} {'images' if own.holds_images else 'brains'} are too many to "
                    "encode now; run foldnorm embed, and give its folder too"
                )
            self._nearest_codes[cohort, model] = codes
            return codes

    def _make(self, cohort: int, brain: int, model: int) -> Volume:
        own = self.cohorts[cohort]
        with self._models:
            viewed = self._load(model)
            viewed.check(own)
            return viewed.make(own, brain)

    def _repair(self, cohort: int, brain: int, model: int, degrade: int) -> dict[str, Any]:
        own = self.cohorts[cohort]
        with self._models:
            viewed = self._load(model)
            viewed.check(own)
            return viewed.repair(own, brain, degrade=bool(degrade))

    def _true(self, cohort: int, brain: int, model: int) -> Volume | None:
        own = self.cohorts[cohort]
        return self._model(model).true(own, brain)

    def _model(self, model: int) -> "ViewedModel":
        with self._models:
            return self._load(model)

    def _load(self, model: int) -> "ViewedModel":
        """Load a model when it is first asked for; under the lock."""
        if model not in self._loaded:
            from foldnorm.pipeline.view.models import ViewedModel  # torch takes seconds to import

            self._loaded[model] = ViewedModel.open(self.runs[model], self.device)
        return self._loaded[model]


def palette_of(scheme: LabelScheme) -> list[list[int]]:
    """Colours of the classes of a scheme."""
    return class_colours(scheme.n_classes).tolist()


def _classes_of(scheme: LabelScheme) -> dict[str, Any]:
    return {"names": scheme.names, "palette": palette_of(scheme)}


def _is_of_all(embedded: Path, cohort: Cohort) -> bool:
    """Say if a folder of codes has one for each volume of a cohort, in their order."""
    return [row_key(row) for row in read_tsv(embedded / CODES_TABLE)] == cohort.keys()


def _as_png(slices: list[NDArray[np.uint8]]) -> bytes:
    return png(contact_sheet([slices], scale=1))


def _name_of(run: Path) -> str:
    """Name of a folder: its last two parts, as many runs are called ``run`` or ``seed-0``."""
    return "/".join(run.resolve().parts[-2:])


def _scores_of(row: Mapping[str, str]) -> dict[str, Any]:
    names = [name.removeprefix("score_") for name in row if name.startswith("score_")]
    return {
        "used_for": row.get("used_for", ""),
        "rows": [[name, row[f"score_{name}"], row.get(f"p_{name}", "")] for name in names],
    }
