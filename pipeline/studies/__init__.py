"""Many trainings or scorings, one table: benchmark, comparison, cross-validation, search.

No loss, score or metric is defined here: a study calls those of the rooms below, and tabulates.
"""
