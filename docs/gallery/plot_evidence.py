"""
Evidence of a missing fold
==========================

The central sulcus of a phantom is erased, and the phantom is compared with 23 others without any
network: how far is each place from the nearest fold, in standard deviations of the others? The
region that departs most shines through the surface.
"""

import numpy as np

import foldnorm as fn
from foldnorm.pipeline.scoring.map_scores import label_components
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.preprocessing.alteration.deletion import Deletion, apply_deletion

cohort = fn.datasets.phantoms(24, voxel_size=3, thin=True)
label = {row["name"]: int(row["label"]) for row in cohort.fold_table}["central"]
erased = Deletion("fold", label=label)
volume = apply_deletion(cohort[0].volume, erased, cohort.scheme, folds=cohort.folds[0])
patient = cohort.brain(0, volume)

void = VoidScores(cohort.scheme, cohort.voxel_size).fit(cohort.view(range(1, len(cohort))))
((z,),) = void.maps([patient])
regions, _ = label_components(z, z.max() / 2)
evidence = np.where(regions == regions[np.unravel_index(z.argmax(), z.shape)], z, 0)
figure = fn.plot(patient, "without its central sulcus", surface=True, values=evidence)
