"""From a segmentation of grey and white matter to a skeleton with folds, in Morphologist's layout.

It alone aligns brains to MNI space. No cohort is written here: what it makes is a source.
"""
