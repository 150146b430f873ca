"""
Sulci named by an atlas
=======================

An atlas says in how many brains a sulcus runs through each place. A hemisphere is brought to it by
the affine map that makes the names of its folds likeliest, and each fold gets the likeliest name.
Here an atlas of 15 phantoms names another one; secondary folds, which lie anywhere, have no name.
"""

import numpy as np

import foldnorm as fn
from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

cohort = fn.datasets.phantoms(16, voxel_size=3, hull="remove")
rows = [row for row in cohort.fold_table if row["name"]]
sulci = {int(row["label"]): row["name"].replace("_", " ") for row in rows}
folds = np.array(cohort.folds[1:])
counts = np.array([(folds == label).sum(axis=0) for label in sulci], dtype=np.uint16)
atlas = SulcusAtlas(tuple(sulci.values()), {"L": counts}, cohort.affine)

found = AtlasLabeller(atlas, cohort).name(cohort[0])
labels = np.zeros(cohort.shape, dtype=int)
labels[cohort[0].volume == 2] = found.probabilities.argmax(axis=0)
names = dict(enumerate(atlas.names, 1))
figure = fn.plot(cohort[0], "named by an atlas", surface=True, labels=labels, names=names)
