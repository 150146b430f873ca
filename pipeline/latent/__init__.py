"""Analyses of a latent space, one function for each sub-command of ``foldnorm latent``."""
