"""
Five alterations
================

Scores are measured on brains of which it is known what is wrong: a fold is erased (*fold*), erased
with its neighbours drawn half-way into the gap (*refill*), cut in two (*interrupt*), moved
(*displace*), or copied from another brain (*add*). Orange: where there is a sheet that was not
there before; red: where there is none any more. The same seed draws the same alteration.
"""

import matplotlib.pyplot as plt
import numpy as np

import foldnorm as fn
from foldnorm.pipeline.report.hemisphere import Hemisphere, glows_of_regions
from foldnorm.preprocessing.alteration.alteration import alter
from foldnorm.preprocessing.alteration.deletion import SizeRange

cohort = fn.datasets.phantoms(2, voxel_size=3, thin=True)
before = cohort[0].volume
sizes = SizeRange.parse("700-1500")  # mm² of the fold
kinds = ("fold", "refill", "interrupt", "displace", "add")

figure, axes = plt.subplots(2, 3, figsize=(9, 4.2), layout="constrained")
axes[1, 2].set_axis_off()
for own, kind in zip(axes.flat, kinds, strict=False):
    ((after),) = [found.volume for found in alter(cohort, [0], sizes, kind=kind)]
    hemisphere = Hemisphere(
        after == 1, after == 2, cohort.voxel_size, "L", labels=(after == 2) & (before != 2),
        colours=np.array([[222.0, 119, 36]]), glows=glows_of_regions((before == 2) & (after != 2)),
    )  # fmt: skip
    (view,) = hemisphere.views(["left"])
    view.show(own, scale_bar=kind == "fold")
    own.set_title(kind)
