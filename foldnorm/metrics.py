"""Pure functions of arrays that the figures of foldnorm are made of."""

from foldnorm.pipeline.metrics.classes import class_dice, class_distances, sulcus_dice
from foldnorm.pipeline.metrics.detection import detection, paired_share, roc_curve
from foldnorm.pipeline.metrics.latent import active_share, silhouette
from foldnorm.pipeline.metrics.sheets import (
    compare_populations,
    count_components,
    opening_fraction,
    sheet_panel,
)
from foldnorm.pipeline.metrics.structure import microstructure_statistics, sheet_statistics
from foldnorm.pipeline.metrics.two_sample import mmd, precision_recall_coverage, two_sample_auroc

__all__ = [
    "active_share",
    "class_dice",
    "class_distances",
    "compare_populations",
    "count_components",
    "detection",
    "microstructure_statistics",
    "mmd",
    "opening_fraction",
    "paired_share",
    "precision_recall_coverage",
    "roc_curve",
    "sheet_panel",
    "sheet_statistics",
    "silhouette",
    "sulcus_dice",
    "two_sample_auroc",
]
