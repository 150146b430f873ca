"""A finished training, as later commands open it: configuration, run folder, trained model.

Neither the training loop nor a score comes in: who opens a run must not load what made it.
"""
