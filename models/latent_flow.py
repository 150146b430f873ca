"""Rectified flow of label volumes in the latent space of an autoencoder."""

from foldnorm.models.latent_stage import LatentStage
from foldnorm.models.rectified_flow import RectifiedFlow


class LatentFlow(LatentStage, RectifiedFlow):
    """A `RectifiedFlow` of the codes of an autoencoder; arguments as of both."""
