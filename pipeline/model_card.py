"""The model card of a run: what it is, what it was trained on, how well it does, what it is not."""

from foldnorm.pipeline.metrics_table import MetricsTable
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.tracks import learned_from
from foldnorm.preprocessing.files import write_text

MODEL_CARD = "MODEL_CARD.md"


def write_model_card(run: RunFolder, metrics: MetricsTable) -> None:
    """Write ``MODEL_CARD.md``."""
    write_text(run.folder / MODEL_CARD, card_of(run, metrics))


def card_of(run: RunFolder, metrics: MetricsTable) -> str:
    """The model card, from what the run folder holds."""
    data, config = run.data, run.config
    step, panel = run.best_panel(metrics)
    _, samples = run.best_panel(metrics, of="samples")
    named = [*panel.items(), *((f"samples: {name}", value) for name, value in samples.items())]
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in named)
    kind = "**phantoms drawn by a program, not brains**" if data["phantom"] else "label volumes"
    participants = run.participants
    asked = config["model"].get("init_args", {})
    known = sum(len(earlier["participants"]) for earlier in data.get("before", []))
    before = f", starting from weights that {known} other participants had given" if known else ""
    learned = learned_from(asked.get("edits") or (), asked.get("sulci") or ())
    return f"""# {config["model"]["class_path"].rsplit(".", 1)[-1]}

Trained with foldnorm on {kind}: {participants["train"]} participants, validated on
{participants["validation"]} others. Volumes of {data["shape"]} voxels of
{data["voxel_size"]} mm; the preparation stands in `data.json`, the settings in `config.yaml`.

Validation figures at the best checkpoint (step {step}):

| figure | mean |
|---|---|
{figures}

It learned from {learned}{before}.

For research on cortical folding. Not for diagnosis: a score says how far a brain lies from the
training cohort, which may differ from it in scanner, age or preprocessing as well as in folding.
"""
