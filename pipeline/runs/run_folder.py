"""The run folder: what training writes, and what every later command reads a model from.

Only what reads or writes weights imports torch: the report reads the records without it.
"""

import io
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foldnorm.pipeline.artifacts import (
    BUNDLE_WEIGHTS,
    CHECKPOINT,
    RUN_CONFIG,
    RUN_COST,
    RUN_DATA,
    RUN_ENVIRONMENT,
    RUN_METRICS,
    RUN_SAMPLE,
)
from foldnorm.pipeline.data.brains import check_cohort
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.old_names import current_config
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import (
    content_fault,
    hashed,
    numbers_of,
    read_json,
    refuse_missing,
    unreadable,
    write_bytes,
    write_json,
)
from foldnorm.preprocessing.core.yaml_files import read_yaml, write_yaml

if TYPE_CHECKING:
    import torch

    from foldnorm.pipeline.runs.trained_model import TrainedModel

PACKAGES = ("foldnorm", "torch", "monai", "lightning", "numpy", "scipy", "scikit-learn", "nibabel")


@dataclass(frozen=True)
class RunFolder:
    """Paths and records of one training run.

    Attributes:
        folder: where it lies.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "RunFolder":
        """Open a run that has at least one checkpoint."""
        run = cls(folder)
        run._check_has_config()
        if not (run.checkpoint("last").is_file() or run.is_bundle):
            raise InputError(f"run has no checkpoint yet: {folder}")
        return run

    @property
    def is_bundle(self) -> bool:
        """True if this is an exported model."""
        return (self.folder / BUNDLE_WEIGHTS).is_file()

    def checkpoint(self, name: str) -> Path:
        """Path of the checkpoint ``last`` or ``best``."""
        return self.folder / CHECKPOINT.of(name=name)

    @property
    def weights(self) -> Path:
        """Path of the weights that `load` takes: the best checkpoint, or what was exported."""
        if self.is_bundle:
            return self.folder / BUNDLE_WEIGHTS
        best = self.checkpoint("best")
        return best if best.is_file() else self.checkpoint("last")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration as resolved: ``model`` and ``training``."""
        self._check_has_config()
        content = current_config(read_yaml(self.folder / RUN_CONFIG))
        path, parts = self.folder / RUN_CONFIG, ("model", "training")
        if not isinstance(content, dict) or not all(
            isinstance(content.get(p), dict) for p in parts
        ):
            reason = content_fault(path) or "expected a configuration, with model and training"
            raise InputError(f"{reason}: {path}")
        if not isinstance(content["model"].get("class_path"), str) or not isinstance(
            content["model"].setdefault("init_args", {}), dict
        ):
            raise InputError(f"expected a model with class_path and init_args: {path}")
        return content

    @cached_property
    def data(self) -> dict[str, Any]:
        """Record of the training data: preparation, shape, participants by split."""
        record = read_json(self.folder / RUN_DATA)
        if "before" in record:  # its name in release 0.1
            record.setdefault("pretrained_on", record.pop("before"))
        return record

    def _check_has_config(self) -> None:
        if (self.folder / RUN_CONFIG).is_file():
            return
        from foldnorm.pipeline.runs.config import shipped_configs  # imports torch

        if not self.folder.exists() and self.folder.name in shipped_configs():
            raise InputError(
                f"expected a run, got the name of a configuration; train one first: foldnorm train "
                f"{self.folder.name} COHORT -o RUN: {self.folder}"
            )
        refuse_missing(self.folder)
        raise InputError(f"not a run folder (no {RUN_CONFIG}): {self.folder}")

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration as resolved."""
        write_yaml(self.folder / RUN_CONFIG, config)

    def remove_training(self) -> None:
        """Remove what an earlier training has left: its checkpoints, metrics, cost and pictures."""
        for left in (CHECKPOINT, RUN_METRICS, RUN_COST, RUN_SAMPLE):
            for path in self.folder.glob(left.pattern):
                path.unlink()

    def write_data(
        self, cohort: Cohort, conditions: Conditions, init_from: "RunFolder | None" = None
    ) -> None:
        """Record the cohort: its preparation, the participants of each split, the conditions.

        Args:
            cohort: that the model is trained on.
            conditions: that the model is given.
            init_from: run whose weights this one starts from; its training participants are
                recorded too.
        """
        known = [] if init_from is None else init_from.training_participants
        write_json(
            self.folder / RUN_DATA,
            {
                "cohort": str(cohort.folder.resolve()),
                "preparation": cohort.preparation,
                "shape": list(cohort.shape),
                "voxel_size": list(cohort.voxel_size),
                "phantom": cohort.is_phantom,
                "conditions": conditions.as_dicts(),
                "participants": {
                    split: sorted({cohort.rows[i]["participant_id"] for i in cohort.indices(split)})
                    for split in ("train", "validation")
                },
                "pretrained_on": known,
            },
        )

    def write_environment(self) -> None:
        """Record versions, machine and command."""
        write_json(self.folder / RUN_ENVIRONMENT, environment())

    @property
    def environment(self) -> str:
        """Text that `write_environment` recorded; empty for an exported model."""
        path = self.folder / RUN_ENVIRONMENT
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def write_cost(self, cost: Mapping[str, float]) -> None:
        """Record what the run took; see `cost`."""
        write_json(self.folder / RUN_COST, dict(cost))

    @property
    def cost(self) -> dict[str, float]:
        """Parameters, median seconds a step, seconds in all, peak memory in MiB; when finished.

        NaN where nobody counts it.
        """
        return numbers_of(read_json(self.folder / RUN_COST))

    def save_checkpoint(self, name: str, state: Mapping[str, Any]) -> None:
        """Write a checkpoint atomically."""
        import torch

        stream = io.BytesIO()  # torch's own file writer hides why a write failed
        torch.save(dict(state), stream)
        write_bytes(self.checkpoint(name), stream.getvalue())

    def load_checkpoint(self, name: str, parts: Sequence[str] = ("model",)) -> dict[str, Any]:
        """Read a checkpoint onto the CPU: tensors and plain values only, never a pickled object.

        Args:
            name: of the checkpoint, ``best`` or ``last``.
            parts: of it that are needed: weights alone do for anything but going on with training.

        Raises:
            InputError: there is none, it is damaged, or lacks a part.
        """
        import torch

        path = self.checkpoint(name)
        try:
            checkpoint = dict(torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            raise InputError(f"no such checkpoint: {path}") from None
        except Exception as error:  # torch raises many kinds on foreign bytes, with much advice
            known = ValueError("damaged, or no checkpoint of foldnorm")
            raise unreadable(path, "a checkpoint", known) from error
        lacking = [part for part in parts if part not in checkpoint]
        if lacking:
            raise InputError(f"not a checkpoint of foldnorm (it lacks {lacking[0]!r}): {path}")
        return checkpoint

    @property
    def reached(self) -> int:
        """Step of the last checkpoint; 0 if there is none."""
        if not self.checkpoint("last").is_file():
            return 0
        try:
            return int(self.load_checkpoint("last", ("state",))["state"]["step"])
        except (KeyError, TypeError, ValueError) as error:
            raise unreadable(self.checkpoint("last"), "a checkpoint", error) from error

    @property
    def conditions(self) -> Conditions:
        """Columns that the model is conditioned on, and how they become numbers."""
        return Conditions.from_dicts(self.data["conditions"])

    def load(self, device: "torch.device | str" = "cpu") -> "TrainedModel":
        """Return the model of the best checkpoint, in evaluation mode.

        Raises:
            InputError: the weights are unreadable, or of another model.
        """
        import safetensors.torch
        import torch

        from foldnorm.pipeline.runs.config import build_model
        from foldnorm.pipeline.runs.trained_model import TrainedModel

        model = build_model(self.config["model"])
        path = self.weights
        try:
            if self.is_bundle:
                state = safetensors.torch.load(path.read_bytes())
            else:
                checkpoint = self.load_checkpoint(path.stem)
                state = checkpoint.get("average", checkpoint["model"])
        except (safetensors.SafetensorError, OSError) as error:
            raise unreadable(path, "safetensors", error) from error
        try:
            model.load_state_dict(state)
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"weights do not fit {RUN_CONFIG} ({reason}): {path}") from error
        where = torch.device(device)
        return TrainedModel(model.to(where).eval(), where, self.conditions, self.data, self.config)

    def check_model(self, model: Mapping[str, Any]) -> None:
        """Refuse to go on with another model than the run's.

        Raises:
            InputError: with what differs.
        """
        if differing := self.differs_in(model):
            raise InputError(
                f"model configuration differs from the run's {RUN_CONFIG} "
                f"({', '.join(differing)}); give another --out, or --overwrite: {self.folder}"
            )

    def differs_in(self, model: Mapping[str, Any], *, is_first_stage: bool = False) -> list[str]:
        """List the arguments in which a model differs from the run's.

        What the run does not say, as one of an earlier release, has its default.

        Args:
            model: ``class_path`` and ``init_args``, as resolved.
            is_first_stage: the run's model is the first stage of this one, which has more of them.
        """
        from foldnorm.pipeline.runs.config import spelt_out  # imports torch

        own = spelt_out(self.config["model"])
        same = is_first_stage or own["class_path"] == model["class_path"]
        differing = [] if same else ["class_path"]
        ours, theirs = own["init_args"], model.get("init_args", {})
        return differing + [
            name
            for name in sorted(set(ours) if is_first_stage else set(ours) | set(theirs))
            if name != "training_steps" and ours.get(name) != theirs.get(name)
        ]

    def check_cohort(self, cohort: Cohort) -> None:
        """Refuse a cohort that was not prepared as the training cohort was."""
        check_cohort(self.data, cohort)

    def training_cohort(self, folder: Path | None = None) -> Cohort:
        """Open the cohort that the model was trained on.

        Args:
            folder: where it is; None: where it was.

        Raises:
            InputError: it is not there, or was prepared otherwise.
        """
        recorded = self.data.get("cohort")
        if folder is None and (recorded is None or not Path(recorded).is_dir()):
            where = f"training cohort has moved: {recorded}" if recorded else "exported model"
            raise InputError(f"{where}; say where the training cohort is with --reference")
        cohort = Cohort.open(folder or Path(str(recorded)))
        self.check_cohort(cohort)
        return cohort

    def best_metrics(
        self, metrics: MetricsLog, prefix: str = "validation"
    ) -> tuple[int, dict[str, float]]:
        """Return the step of the best checkpoint, and its metrics.

        Args:
            metrics: of this run.
            prefix: ``validation``, metrics of reconstructions; or ``samples``, of drawn volumes.

        Returns:
            The step, and metrics by their names without the prefix.
        """
        options = self.config["training"]
        steps, values = metrics.column(options["monitor"])
        if not steps:
            return max(metrics.rows, default=0), {}
        choose = min if options["monitor_mode"] == "min" else max
        best = steps[values.index(choose(values))]
        head, row = f"{prefix}/", metrics.rows[best]
        return best, {k.removeprefix(head): v for k, v in row.items() if k.startswith(head)}

    @property
    def participants(self) -> dict[str, int]:
        """Number of participants in each split."""
        return {split: len(names) for split, names in self.data["participants"].items()}

    def trained_on(self, participants: Iterable[str]) -> list[str]:
        """List which of these participants the weights were fitted to, in this run or before."""
        found: set[str] = set()
        asked = list(participants)
        for known in self.training_participants:
            salt, names = known["salt"], set(known["participants"])
            found |= {name for name in asked if (hashed(name, salt) if salt else name) in names}
        return sorted(found)

    @property
    def training_participants(self) -> list[dict[str, Any]]:
        """Participants that the weights were fitted to, in this run and before, with hash salts.

        Early runs have no record of the weights that they started from.
        """
        own = {"participants": self.data["participants"]["train"], "salt": self.data.get("salt")}
        return [own, *self.data.get("pretrained_on", [])]


def environment() -> dict[str, Any]:
    """Versions, machine and command, for the record."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "packages": versions,
        "machine": {"system": platform.system(), "cpus": os.cpu_count(), "gpu": cuda},
    }
