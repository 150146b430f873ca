"""What a latent space holds: each analysis a function here, a word of ``foldnorm latent``."""
