"""Brains compared with healthy ones: fit on those, score, calibrate, and say where.

No training comes in, and no study of several models. Only `NormativeMap` divides by a spread.
"""
