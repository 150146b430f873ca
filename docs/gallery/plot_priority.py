"""
Sulcus priority against nearest neighbour
=========================================

A phantom skeleton at 1 mm is brought to 3 mm twice. *Nearest neighbour* keeps a voxel of the sheet
only where a sampling point happens to hit it, so sheets tear. By *priority* the class that wins in
a new voxel is the one of the highest priority that lies anywhere in it: sulcus before inside before
outside.
"""
