"""Figures that result files hold: of a benchmark's table, of a training."""

from pathlib import Path

from foldnorm.pipeline.artifacts import BENCHMARK, RUN_METRICS
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.core.files import number, read_tsv


def of_benchmark(folder: Path, name: str) -> dict[str, float]:
    """AUROC of a benchmark, with its interval: ``name_score_size``, baselines without the name."""
    figures = {}
    for row in read_tsv(folder / BENCHMARK):
        score = row["score"]
        key = score if score.startswith("baseline") else f"{name}_{score}"
        for column, end in (("auroc", ""), ("auroc_low", "_low"), ("auroc_high", "_high")):
            figures[f"{key}_{row['size']}{end}"] = round(number(row, column), 3)
    return figures


def of_training(folder: Path, name: str) -> dict[str, float]:
    """Minutes of a training, and what its best state measures: of validation, of drawn volumes."""
    run, metrics = RunFolder.open(folder), MetricsLog(folder / RUN_METRICS, up_to=2**62)
    _, panel = run.best_metrics(metrics)
    _, samples = run.best_metrics(metrics, prefix="samples")
    figures = {"minutes": run.cost["seconds"] / 60, **panel}
    figures |= {f"samples_{figure}": value for figure, value in samples.items()}
    return {f"{name}_{figure}": round(value, 4) for figure, value in figures.items()}
