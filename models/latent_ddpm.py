"""Denoising diffusion of label volumes in the latent space of an autoencoder."""

from foldnorm.models.ddpm import DDPM
from foldnorm.models.latent_stage import LatentStage


class LatentDDPM(LatentStage, DDPM):
    """A `DDPM` of the codes of an autoencoder; arguments as of both."""
