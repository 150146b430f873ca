"""Names of sulci: an atlas of them, what aligns a brain with it, and gyri as names of sulci.

Nothing here is trained by a network, and nothing of a cohort's layout enters: only points in
millimetres, the labels of their folds, and an atlas.
"""
