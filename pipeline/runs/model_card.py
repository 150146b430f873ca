"""The model card of a run: what it is, what it was trained on, how well it does, what it is not."""

from collections.abc import Mapping
from typing import Any

from foldnorm.pipeline.artifacts import MODEL_CARD
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.provenance import describe_supervision
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.files import write_text

USE = (
    "For research on cortical folding. Not for diagnosis: a score says how far a brain lies from "
    "the\ntraining cohort, which may differ from it in scanner, age or preprocessing as well as in "
    "folding."
)
USE_OF_IMAGES = (
    "For research. Not for diagnosis: what it tells or makes of an image holds for images like "
    "those\nit was trained on, and what it fills in or draws is invented."
)


def write_model_card(run: RunFolder, metrics: MetricsLog) -> None:
    """Write ``MODEL_CARD.md``."""
    write_text(run.folder / MODEL_CARD, card_of(run, metrics))


def card_of(run: RunFolder, metrics: MetricsLog) -> str:
    """Build the model card from the contents of the run folder."""
    data, config = run.data, run.config
    step, panel = run.best_metrics(metrics)
    _, samples = run.best_metrics(metrics, prefix="samples")
    named = [*panel.items(), *((f"samples: {name}", value) for name, value in samples.items())]
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in named)
    of_images = "intensities" in data["preparation"]
    kind = "images" if of_images else "label volumes"
    if data["phantom"]:
        kind = "**synthetic volumes (phantoms, or drawn by a model), not brains**"
    participants = run.participants
    asked = config["model"].get("init_args", {})
    known = sum(len(earlier["participants"]) for earlier in data.get("pretrained_on", []))
    pretrained = (
        f", starting from weights that {counted(known, 'other participant')} had given"
        if known
        else ""
    )
    learned = describe_supervision(asked.get("edits") or (), asked.get("sulci") or ())
    if of_images:
        learned = _learned_from_images(asked)
    return f"""# {config["model"]["class_path"].rsplit(".", 1)[-1]}

Trained with foldnorm on {kind}: {counted(participants["train"], "participant")}, validated on
{counted(participants["validation"], "other")}. {_size(data)}.
The preparation stands in `data.json`, the settings in `config.yaml`.

Validation figures at the best checkpoint (step {step}):

| figure | mean |
|---|---|
{figures}

It learned from {learned}{pretrained}.

{USE_OF_IMAGES if of_images else USE}
"""


def _size(data: Mapping[str, Any]) -> str:
    sides = " × ".join(map(str, data["shape"]))
    if "intensities" in data["preparation"]:
        return f"Images of {sides}"
    size = " × ".join(f"{side:g}" for side in data["voxel_size"])
    return f"Volumes of {sides} voxels of {size} mm"


def _learned_from_images(asked: Mapping[str, Any]) -> str:
    """Describe the training images of a model, from the arguments of its class."""
    if asked.get("target"):
        return f"the classes of the column {asked['target']}"
    if asked.get("damage"):
        told = f"images that were damaged by a program ({', '.join(asked['damage'])})"
        true = asked.get("damaged_column")
        return f"{told}, and others that came damaged ({true})" if true else told
    if asked.get("noise_factor"):
        return f"images under noise of {asked['noise_factor']:g} of the range of intensities"
    return "images as they are"
