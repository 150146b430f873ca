"""Boxes, grids and transforms: where voxels lie, and how labels come from one grid to another.

It knows volumes and affines. No cohort folder comes in, nor who the brains are.
"""
