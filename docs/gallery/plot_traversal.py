"""
A walk along the main direction of variation
============================================

Without any network: the distances of each place to the nearest fold, of 24 phantoms, have a mean
and principal components. From left to right: two standard deviations before the mean along the
first component, the mean, and two after it; sheets are the places nearest to a fold, as many as
phantoms have. Where folds vary their mean is blurred and sheets break up, which is what a latent
space that a network learns has to do better (`foldnorm latent`).
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

import foldnorm as fn
from foldnorm.pipeline.report.hemisphere import Hemisphere
from foldnorm.pipeline.scoring.void import distance_to_folds

cohort = fn.datasets.phantoms(24, voxel_size=3, hull="remove")
scheme, size, volumes = cohort.scheme, cohort.voxel_size, np.array(cohort.volumes)
maps = np.array([gaussian_filter(distance_to_folds(v, scheme, size), 1) for v in volumes])
mean, inside = maps.mean(axis=0), (volumes > 0).mean(axis=0) > 0.5
share = (volumes[:, inside] == 2).mean()
_, _, components = np.linalg.svd((maps - mean).reshape(len(maps), -1), full_matrices=False)
sd = ((maps - mean).reshape(len(maps), -1) @ components[0]).std()

figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for own, step in zip(axes, (-2, 0, 2), strict=True):
    distance = mean + step * sd * components[0].reshape(mean.shape)
    sheets = inside & (distance < np.quantile(distance[inside], share))
    (view,) = Hemisphere(inside & ~sheets, sheets, size, "L").views(["left"])
    view.show(own, scale_bar=step == -2)
    own.set_title(f"mean {step:+d} sd" if step else "mean")
