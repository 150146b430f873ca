"""Denoising diffusion of label volumes in the latent space of a VAE, decoded to classes.

Rombach et al. 2022 (arXiv:2112.10752): a β-VAE first, then diffusion of its codes. Codes that are
drawn from N(0, I) place by place do not agree with their neighbours; a diffusion of the whole map
learns what goes with what.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldnorm.models.beta_vae import BetaVAE
from foldnorm.models.ddpm import DDPM
from foldnorm.models.grids import code_grid
from foldnorm.models.label_autoencoder import draw_code
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase


class LatentDDPM(DDPM):
    """Volume → code → volume in a first stage of the training, noise → code in a second.

    Codes need no scale: drawn from what the encoder says, all together they are near N(0, I).

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_channels: classes; taken from the cohort.
        encoder_channels: of encoder and generator, a level each.
        code_channels: of the map that is the code.
        kl_weight: of KL(code ‖ N(0, I)), nats a voxel.
        free_nats: see `BetaVAE`.
        autoencoder_share: of the training that the first stage takes.
        training_steps: taken from ``training.steps``.
        condition: columns of ``participants.tsv`` that autoencoder and diffusion are told.
        condition_size: numbers they amount to; taken from the cohort.
        others: of the diffusion, see `DDPM`; its sides are those of the code's map.
    """

    input_kind: InputKind = "volumes"

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 3,
        encoder_channels: Sequence[int] = (64,),
        code_channels: int = 10,
        kl_weight: float = 0.3,
        free_nats: float = 0.0,
        autoencoder_share: float = 0.4,
        training_steps: int = 1,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        **others: Any,
    ) -> None:
        if not 0 < autoencoder_share < 1:
            raise ValueError(f"autoencoder_share: expected 0 to 1, got {autoencoder_share:g}")
        grid = code_grid(shape, len(encoder_channels))
        of_both: dict[str, Any] = {"condition": condition, "condition_size": condition_size}
        super().__init__(grid, code_channels, **of_both, **others)
        self.autoencoder = BetaVAE(
            shape,
            n_channels,
            encoder_channels,
            code_channels,
            kl_weight=kl_weight,
            free_nats=free_nats,
            **of_both,
        )
        self.latent_dim = self.autoencoder.latent_dim
        self.autoencoder_steps = round(autoencoder_share * training_steps)
        self.phases: Mapping[str, Phase] = {
            "reconstruction": Phase(("autoencoder",)),
            "diffusion": Phase(("network",)),
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the autoencoder's phase in the first stage, the diffusion's afterwards."""
        return ("reconstruction",) if step < self.autoencoder_steps else ("diffusion",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of the phase; (B, *sides) uint8 in."""
        if phase == "reconstruction":
            return self.autoencoder.loss(phase, volumes, noise, condition)
        return super().loss(phase, volumes, noise, condition)

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the reconstruction and squared error of the noise, (B,).

        Both, so that the first stage does not end with the best figure of all.
        """
        entropy = self.autoencoder.validation_loss(volumes, condition)
        return entropy + super().validation_loss(volumes, condition)

    def encode(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, *sides) uint8 → (B, latent_dim): the mean of the code."""
        return self.autoencoder.encode(volumes, condition)

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) class logits."""
        return self.autoencoder.decode(codes, condition)

    @torch.no_grad()
    def to_clean_input(
        self, volumes: Tensor, condition: Tensor | None, noise: StepNoise | None = None
    ) -> Tensor:
        """Encode (B, *sides) uint8 as (B, code_channels, *grid): drawn, or without noise means."""
        code, log_variance = self.autoencoder.posterior(volumes, condition)
        if noise is not None:
            code = draw_code(code, log_variance, noise.normal(self.latent_dim))
        return code.view(-1, self.n_channels, *self.shape)

    @torch.no_grad()
    def to_output(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Decode codes, (B, code_channels, *grid), to volumes, (B, *sides) uint8."""
        codes = x.flatten(1).to(next(self.autoencoder.parameters()).device)
        return self.autoencoder.to_output(self.autoencoder.decode(codes, condition))
