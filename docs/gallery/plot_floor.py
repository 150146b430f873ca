"""
A normative map with three floors
=================================

Evidence that a fold is missing, whose place is outlined, with three floors of the spread. Where
healthy brains agree their spread is next to nothing, and with a small floor any difference there
has a larger z than the missing fold. The floor is to be as large as the noise: half a voxel.
"""

import matplotlib.pyplot as plt

import foldnorm as fn
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration.deletion import Deletion, deleted_voxels

cohort = fn.datasets.phantoms(24, voxel_size=3, thin=True)
label = {row["name"]: int(row["label"]) for row in cohort.fold_table}["central"]
volume, fold = cohort[0].volume.copy(), Deletion("fold", label=label)
erased = deleted_voxels(volume, fold, cohort.scheme, folds=cohort.folds[0])
volume[erased] = cohort.scheme.void

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for own, floor in zip(axes, (0.01, 0.3, 1.5), strict=True):
    void = VoidScores(cohort.scheme, cohort.voxel_size)
    void.normative = NormativeMap(floor)
    ((z,),) = void.fit(cohort.view(range(1, len(cohort)))).maps([cohort.brain(0, volume)])
    shown = own.imshow(z.max(axis=0).T, origin="lower", cmap="YlOrRd", vmin=0)
    own.contour(erased.any(axis=0).T, [0.5], colors="black", linewidths=0.8)
    own.set_title(f"floor {floor:g} mm: largest z {z.max():.0f}")
    own.set_axis_off()
    figure.colorbar(shown, ax=own, orientation="horizontal", shrink=0.7)
