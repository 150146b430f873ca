"""Pure functions of arrays that figures are made of: of sheets, classes, images, two samples.

No cohort, no file and no trained model comes in: who has one makes arrays of it first.
"""
