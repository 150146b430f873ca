"""Synthetic ground truth: folds erased, moved, interrupted or added in volumes of a cohort.

Nothing that looks for alterations or scores them comes in; the altered cohort stays as it was.
"""
