"""A source becomes a cohort folder, of label volumes or of images, and is read back from it.

Skeletons are made before that (`skeletons`) and alterations after it (`alteration`): neither comes
in, and no model.
"""
