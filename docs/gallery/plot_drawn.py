"""
A hemisphere drawn by a program
===============================

Real brains cannot be shipped, so examples and tests use phantoms: hemispheres that a program draws,
with a hull, named primary sulci and smaller ones that differ from one to the next. The same seed
gives the same bytes. They are no brains, and what is measured on them says little about brains.
"""

import foldnorm as fn

cohort = fn.datasets.phantoms(1, voxel_size=3)
names = {int(row["label"]): row["name"].replace("_", " ") for row in cohort.fold_table}
primary = {label: name for label, name in names.items() if "secondary" not in name}
figure = fn.plot(cohort[0], surface=True, labels=cohort.folds[0], names=primary)
