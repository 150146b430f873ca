"""The functions of the front door: each reads what it is given and calls one of the pipeline."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foldnorm.pipeline.report.qc_page import write_quality_page
from foldnorm.pipeline.runs.config import resolve_for
from foldnorm.pipeline.runs.devices import choose_device
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.training.signals import STOPPED
from foldnorm.pipeline.training.train import refuse_existing_run
from foldnorm.pipeline.training.train import train as train_run
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preprocess import preprocess as run_preprocessing
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.io.sources import Source

LOG = logging.getLogger("foldnorm")
PathLike = str | Path


def preprocess(source: PathLike | Sequence[PathLike], out: PathLike, **options: Any) -> Cohort:
    """Turn label volumes into a cohort folder, as ``foldnorm preprocess`` does.

    What is finished already is not done again. Volumes that cannot be prepared are logged as
    warnings; the others are finished.

    Args:
        source: Morphologist tree, folder of NIfTI files, one file, or a table; or several.
        out: folder to write.
        options: flags of the command, such as ``voxel_size=2``, ``pad="multiple:8"``,
            ``hemi="L"``, ``crop="region:…"``, ``layout_from="cohort"``; see
            `foldnorm.preprocessing.cohort.options.PreprocessOptions`.

    Returns:
        The cohort.

    Raises:
        InputError: nothing can be done at all, or there is no such option, or another process
            writes to that folder.

    Example:
        >>> cohort = fn.preprocess("/data/morphologist", "cohort", voxel_size=2)  # doctest: +SKIP
    """
    if "shard" in options:
        raise InputError("a shard leaves no cohort: `foldnorm preprocess --shard` prepares one")
    given = [source] if isinstance(source, (str, Path)) else source
    sources = [Source.parse(str(one)) for one in given]
    plan = CohortPlan.from_options(PreprocessOptions.from_words(options))
    with held(Path(out)):
        report = run_preprocessing(sources, Path(out), plan)
        for failure in report["failed"]:
            LOG.warning("%s: %s", failure["volume"], failure["reason"])
        cohort = Cohort.open(out)
        write_quality_page(cohort)
    return cohort


def load_config(
    model: PathLike,
    cohort: Cohort | PathLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    weights: PathLike | None = None,
) -> dict[str, Any]:
    """Read a configuration and fill in what a cohort says.

    Args:
        model: name of a shipped configuration (`list_models`), or a YAML file.
        cohort: that will be trained on, or its folder.
        overrides: of single keys: ``{"training.steps": 500, "model.init_args.kl_weight": 0.1}``.
        weights: run or bundle from which `train` will start. A model of codes takes a trained
            autoencoder as its first stage, with its arguments.

    Returns:
        ``{"model": {"class_path", "init_args"}, "training": {…}}``, every default spelt out.

    Raises:
        InputError: unknown model or key, wrong type.

    Example:
        >>> fn.load_config("autoencoder", cohort, {"training.steps": 500})["training"]["steps"]
        500
    """
    words = [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in (overrides or {}).items()
    ]
    trained = None if weights is None else RunFolder.open(Path(weights)).config["model"]
    return resolve_for(_opened(cohort), str(model), words, trained)


def train(
    config: Mapping[str, Any],
    cohort: Cohort | PathLike,
    out: PathLike,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    weights: PathLike | None = None,
    quiet: bool = False,
) -> TrainedModel:
    """Train a model on a cohort, as ``foldnorm train`` does.

    Args:
        config: as `load_config` returns it.
        cohort: its training split is trained on, its validation split validated on.
        out: run folder to write.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: continue from the last checkpoint, if there is one.
        overwrite: start anew in an existing run folder.
        weights: run or bundle to start from: of the same model, or of its first stage.
        quiet: no progress bar.

    Returns:
        The model of the best checkpoint.

    Raises:
        InputError: the run exists, or configuration and cohort do not go together.
        KeyboardInterrupt: Ctrl-C, with the state saved: ``resume=True`` continues.

    Example:
        >>> config = fn.load_config("autoencoder", cohort, {"training.steps": 1})
        >>> model = fn.train(config, cohort, "another_run", quiet=True)
    """
    refuse_existing_run(Path(out), resume=resume, overwrite=overwrite)
    start = None if weights is None else Path(weights)
    code = train_run(
        config, _opened(cohort), Path(out), device=device, resume=resume, weights=start, quiet=quiet
    )
    if code == STOPPED:
        LOG.warning("stopped before the last step; resume=True continues: %s", out)
    elif code:
        raise KeyboardInterrupt
    return load(out, device)


def load(path: PathLike, device: str = "auto") -> TrainedModel:
    """Open a run folder, or an exported MONAI bundle.

    Args:
        path: of either.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        InputError: it is neither, or its weights are unreadable.

    Example:
        >>> fn.load("run").reconstruct(cohort[0]).shape[1:] == cohort.volumes.shape[1:]
        True
    """
    return RunFolder.open(Path(path)).load(choose_device(device))


def _opened(cohort: Cohort | PathLike) -> Cohort:
    return cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
