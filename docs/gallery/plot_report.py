"""
A page of the report
====================

`foldnorm report` prints a page of each of the most unusual brains: the hemisphere, planes through
what departs most, the share of healthy brains that have a fold there, and how far from one they are
on average. Here a phantom from which a fold was erased is compared with 23 others, without a
network.
"""

import base64
import io
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import foldnorm as fn
from foldnorm.pipeline.report.brain_page import PageChoice, brain_pages
from foldnorm.preprocessing.alteration.alteration import write_altered_cohort
from foldnorm.preprocessing.alteration.deletion import SizeRange

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    healthy = fn.datasets.phantoms(24, folder, voxel_size=4, thin=True)
    sizes, first = SizeRange.parse("900-1500"), healthy.indices()[:1]
    write_altered_cohort(healthy, first, folder / "patient", sizes, kind="fold", seed=0)
    patient = fn.Cohort.open(folder / "patient")
    fn.Scorer().fit(healthy).score(patient).save(folder / "scores", maps=True)
    (page,) = brain_pages(folder / "scores", PageChoice(1))

figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
axes.imshow(plt.imread(io.BytesIO(base64.b64decode(page["planes"].partition(",")[2]))))
axes.set_axis_off()
