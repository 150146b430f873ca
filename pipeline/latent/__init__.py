"""Analyses of a latent space, one function for each sub-command of ``foldnorm latent``.

An analysis takes codes or a `LatentSpace` and knows no files: `outputs` alone writes. Nothing is
trained or scored here.
"""
