"""One model trained on one cohort: its task, the loop, validation, several processes.

What compares several trainings is a study, and what only applies a model is inference: neither
comes in.
"""
