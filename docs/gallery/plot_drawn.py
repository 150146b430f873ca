"""
A hemisphere drawn by a program
===============================

Real brains cannot be shipped, so examples and tests use phantoms: hemispheres that a program draws,
with a hull, named primary sulci and smaller ones that differ from one to the next. The same seed
gives the same bytes. They are no brains, and what is measured on them says little about brains.
"""

import foldnorm as fn

cohort = fn.datasets.phantoms(1, voxel_size=3)
rows = [row for row in cohort.fold_table if row["name"]]
names = {int(row["label"]): row["name"].replace("_", " ") for row in rows}
figure = fn.plot(cohort[0], surface=True, labels=cohort.folds[0], names=names)
