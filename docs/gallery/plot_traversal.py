"""
A walk along the main direction of variation
============================================

Without any network: the distances of each place to the nearest fold, of 24 phantoms, have a mean
and principal components. From left to right, in a sagittal plane: two standard deviations before
the mean along the first component, the mean, and two after it. Where folds vary their mean is
blurred, which is what a latent space that a network learns has to do better (`foldnorm latent`).
"""

import matplotlib.pyplot as plt
import numpy as np

import foldnorm as fn
from foldnorm.pipeline.scoring.void import distance_to_folds

cohort = fn.datasets.phantoms(24, voxel_size=3, thin=True)
scheme, size = cohort.scheme, cohort.voxel_size
maps = np.array([distance_to_folds(volume, scheme, size) for volume in np.array(cohort.volumes)])
mean = maps.mean(axis=0)
_, _, components = np.linalg.svd((maps - mean).reshape(len(maps), -1), full_matrices=False)
sd = ((maps - mean).reshape(len(maps), -1) @ components[0]).std()
plane = int(mean.sum(axis=(1, 2)).argmax())

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
for own, step in zip(axes, (-2, 0, 2), strict=True):
    distance = mean + step * sd * components[0].reshape(mean.shape)
    shown = own.imshow(distance[plane, ::-1].T, origin="lower", cmap="bone", vmin=0, vmax=10)
    own.set_title(f"mean {step:+d} sd" if step else "mean")
    own.set_axis_off()
figure.colorbar(shown, ax=axes, shrink=0.7).set_label("mm to the nearest fold")
