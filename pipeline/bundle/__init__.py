"""A trained model as a MONAI bundle: written here, and run by MONAI without the training cohort.

What ``inference.json`` names is found by `foldnorm.bundle`, wherever it lies here. Neither training
nor scoring comes in, and neither a participant's name nor a path may enter a bundle.
"""
