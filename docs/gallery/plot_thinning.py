"""
Thinning keeps topology
=======================

At a lower resolution sheets are up to two voxels thick. Thinning takes voxels away until they are
one voxel thick, but only *simple* points: their removal changes neither the number of pieces nor
that of holes. The opening fraction, the share of voxels in full blocks of 2×2×2, shows how thick
sheets are.
"""

import matplotlib.pyplot as plt

import foldnorm as fn
from foldnorm.preprocessing.topology.thinning import thin

cohort = fn.datasets.phantoms(1, voxel_size=3, hull="remove")
thick = cohort[0].volume
sulcus = int(thick.max())

figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
for own, name, volume in zip(axes, ("before", "after"), (thick, thin(thick, sulcus)), strict=True):
    sheets = volume == sulcus
    pieces, thickness = fn.metrics.count_components(sheets), fn.metrics.opening_fraction(sheets)
    own.imshow(volume[:, volume.shape[1] // 2].T, origin="lower", cmap="Blues")
    own.set_title(f"{name}: pieces {pieces}, opening fraction {thickness:.2f}")
    own.set_axis_off()
