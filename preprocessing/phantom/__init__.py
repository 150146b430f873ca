"""A procedural cohort: hemispheres with named sulci, for demos, tests and controlled experiments.

Parameter ranges were chosen against real skeletons. It is a phantom, and says so wherever its
results are shown: no real volume comes in.
"""
