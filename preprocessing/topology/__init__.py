"""Digital topology of sheets one voxel thick: simple points, homotopic growth, thinning, the hull.

Arrays in, arrays out: no file, no affine and no subject comes in.
"""
