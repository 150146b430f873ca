"""From a cohort to the batches that a model reads: brains, augmentation, edits, names of sulci.

What knows a run folder, a loss or a score stays outside: data are the same whoever trains on them.
"""
