"""Training of an exported model that goes on with other volumes, as its ``train.json`` says.

The loop is the one of ``foldnorm train --weights BUNDLE``; what it writes is a run folder, which is
scored and exported as any other.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from foldnorm.pipeline.artifacts import BUNDLE_DATALIST
from foldnorm.pipeline.bundle.common import ADDRESS
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.image_cohort import write_image_cohort
from foldnorm.preprocessing.cohort.image_preparation import ImagePreparation
from foldnorm.preprocessing.cohort.images import find_images
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preprocess import preprocess
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_tsv
from foldnorm.preprocessing.io.source_volume import COMPANIONS
from foldnorm.preprocessing.io.sources import Source
from foldnorm.preprocessing.io.volumes import volume_stem

LOG = logging.getLogger("foldnorm")
COHORT, RUN = "cohort", "run"  # under the output folder
FILES = ("image", *COMPANIONS)  # keys of a dictionary that are paths
STEPS, LEARNING_RATE = 500, 2e-4  # unless something else is said: a tenth of a training's rate


class FineTuning:
    """Training that goes on: ``foldnorm train --weights BUNDLE``, as MONAI runs it.

    Args:
        folder: of the bundle.
        dataset_dir: cohort folder that was prepared like the bundle's; or what ``foldnorm
            preprocess`` (``foldnorm images``) takes, which is prepared first.
        output_dir: folder for the run, and for what is prepared.
        steps: of training.
        learning_rate: of all networks.
        batch_size: volumes a phase; None: as before.
        device: to train on.
        datalist: dictionaries in the place of ``dataset_dir``: the path of a volume under
            ``image``; where there are any, the ``pair``, ``folds`` and the other companions of a
            table, ``participant_id``, ``hemi``, and columns of ``participants.tsv``.
        training: other keys of the configuration's ``training`` section.
    """

    def __init__(
        self,
        folder: str | Path,
        dataset_dir: str | Path,
        output_dir: str | Path,
        *,
        steps: int = STEPS,
        learning_rate: float = LEARNING_RATE,
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
        datalist: Sequence[Mapping[str, Any]] | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.source, self.out = Path(folder), Path(dataset_dir), Path(output_dir)
        self.run_folder = RunFolder.open(self.folder)
        self.device, self.datalist = str(device), datalist
        of_steps = {"steps": steps, "learning_rate": learning_rate, "learning_rates": {}}
        of_batch = {} if batch_size is None else {"batch_size": batch_size}
        known = {**self.run_folder.config["training"], "session_steps": None}
        self.config = {
            "model": self.run_folder.config["model"],
            "training": {**known, **of_steps, **of_batch, **(training or {})},
        }

    def run(self) -> Path:
        """Train, and return the run folder.

        Raises:
            InputError: volumes are of another kind than the model's, or there are none.
        """
        from foldnorm.pipeline.training.train import refuse_existing_run, train

        out = self.out / RUN
        refuse_existing_run(out, resume=False, overwrite=False)
        train(self.config, self._cohort(), out, device=self.device, weights=self.folder, quiet=True)
        return out

    def _cohort(self) -> Cohort:
        """Open the cohort, or prepare one."""
        if self.datalist is None and Cohort.is_in(self.source):
            return Cohort.open(self.source)
        out = self.out / COHORT
        if "intensities" in self.run_folder.data["preparation"]:
            if self.datalist is not None:
                raise InputError("datalist: expected None for images, which come as a folder")
            found = find_images(self.source.absolute())
            preparation = ImagePreparation.from_cohort(self.folder)
            report = write_image_cohort(
                found, out, preparation, fractions=PreprocessOptions.split_fractions
            )
        else:
            source = self.source if self.datalist is None else self._listed(self.datalist)
            options = PreprocessOptions(layout_from=self.folder, quiet=True)
            plan = CohortPlan.from_options(options)
            report = preprocess([Source.parse(str(source))], out, plan)
        for failure in report["failed"]:
            LOG.warning("%s", "; ".join(map(str, failure.values())))
        return Cohort.open(out)

    def _listed(self, datalist: Sequence[Mapping[str, Any]]) -> Path:
        """Write a list of dictionaries as a table that ``foldnorm preprocess`` takes."""
        rows = []
        for number, given in enumerate(datalist):
            if not given.get("image"):
                raise InputError(f"datalist: expected a path under 'image', got {dict(given)}")
            paths = {key: str(Path(given[key]).absolute()) for key in FILES if given.get(key)}
            path = paths.pop("image")
            participant = given.get("participant_id") or f"{volume_stem(Path(path))}x{number}"
            others = {k: v for k, v in given.items() if k not in FILES}
            rows.append({**others, "participant_id": participant, "path": path, **paths})
        columns = list(dict.fromkeys(key for row in rows for key in row))
        write_tsv(self.out / BUNDLE_DATALIST, rows, columns)
        return self.out / BUNDLE_DATALIST


def training_config() -> dict[str, Any]:
    """``train.json``: run by ``monai.bundle run training``."""
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/input'",
        "datalist": None,
        "output_dir": "$@bundle_root + '/fine_tuned'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "steps": STEPS,
        "learning_rate": LEARNING_RATE,
        "batch_size": None,
        "training_options": {},
        "train": {
            "trainer": {
                "_target_": f"{ADDRESS}.FineTuning",
                "folder": "@bundle_root",
                "dataset_dir": "@dataset_dir",
                "datalist": "@datalist",
                "output_dir": "@output_dir",
                "steps": "@steps",
                "learning_rate": "@learning_rate",
                "batch_size": "@batch_size",
                "device": "@device",
                "training": "@training_options",
            }
        },
        "training": ["$@train#trainer.run()"],
    }
