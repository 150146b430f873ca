"""VQ-VAE: a volume as a grid of entries of learned codebooks (van den Oord et al. 2017)."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from foldnorm.models.block_networks import BlockEncoder, BlockGenerator
from foldnorm.models.classes import one_hot
from foldnorm.models.codebooks import Codebooks, CodeMeanings
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Phase


class VQVAE(LabelAutoencoder):
    """Encoder, codebooks, generator: each place of the code's grid holds entries of codebooks.

    Codes are so drawn from a finite set, and a brain is a sequence of numbers, as a text is one of
    words. It has no prior and draws nothing: `VQVAETransformer` does.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of the generator, a level each; each doubles the sides of the block of voxels that
            a place of the code's grid stands for, from `STEM` on.
        code_channels: of the map that is the code, a part for each codebook.
        n_codebooks: codes of each place, one for each of so many cubes of its block.
        n_codes: entries of each codebook.
        norm: group norm in the generator.
        commitment_weight: of the squared distance between what is encoded and its code.
        codebook_decay: of the moving averages that codebooks are.
        codebook_annealing: share of the training over which codes take the place of what is
            encoded, so that the encoder first learns what is worth a code.
        training_steps: taken from ``training.steps``.
        condition: columns of ``participants.tsv`` that the generator is told.
        condition_size: numbers they amount to; taken from the cohort.
        others: see `LabelAutoencoder`.

    Source:
        van den Oord et al. 2017 (arXiv:1711.00937).
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        channels: Sequence[int] = (64,),
        code_channels: int = 64,
        n_codebooks: int = 8,
        n_codes: int = 256,
        norm: bool = False,
        commitment_weight: float = 0.25,
        codebook_decay: float = 0.97,
        codebook_annealing: float = 0.2,
        training_steps: int = 1,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        **others: Any,
    ) -> None:
        encoder = BlockEncoder(shape, n_classes, channels, code_channels, n_codebooks)
        super().__init__(
            encoder,
            BlockGenerator(shape, n_classes, channels, code_channels, None, norm, condition_size),
            shape,
            n_classes,
            code_channels * prod(encoder.grid),
            condition=condition,
            **others,
        )
        self.grid = tuple(encoder.grid)
        self.codebooks = Codebooks(code_channels, n_codebooks, n_codes, codebook_decay)
        voxels = encoder.side ** len(shape)
        self.meanings = CodeMeanings(n_codebooks, n_codes, n_classes, voxels, codebook_decay)
        self.commitment_weight = commitment_weight
        self.annealing_steps = codebook_annealing * training_steps
        # What codebooks and their meanings follow after the step.
        self._last: tuple[Tensor, Tensor, Tensor] | None = None
        self.phases: Mapping[str, Phase] = {"reconstruction": Phase(("encoder", "generator"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of both networks; the codebooks follow what is encoded."""
        del step
        return ("reconstruction",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of the reconstruction, and the commitment of the encoder to its codes."""
        del phase
        encoded = self._encoded(volumes)
        tokens = self.codebooks.tokens(encoded.detach())
        codes = self.codebooks.codes(tokens)
        commitment = F.mse_loss(encoded, codes)
        share = min((noise.step + 1) / max(self.annealing_steps, 1), 1)
        passed = encoded + share * (codes - encoded).detach()  # the gradient goes straight through
        terms = self.reconstruction_terms(self.decode(passed.flatten(1), condition), volumes)
        if self.training:
            self._last = volumes, encoded.detach(), tokens
        return {
            **terms,
            "commitment": commitment,
            "codes_in_use": self.codebooks.in_use,
            "loss": terms["loss"] + self.commitment_weight * commitment,
        }

    def after_step(self, phase: str) -> None:
        """Have the codebooks follow what was encoded in the step."""
        if phase == "reconstruction" and self._last is not None:
            volumes, encoded, tokens = self._last
            self.codebooks.follow(encoded, tokens)
            assert isinstance(self.encoder, BlockEncoder)
            self.meanings.follow(tokens, self.encoder.cubes(one_hot(volumes, self.n_classes)))
            self._last = None

    def encode(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(B, *sides) uint8 → (B, latent_dim): the entries of each place."""
        del condition, feature_maps  # a code says what is there, whoever it is of
        return self.codebooks.codes(self.tokens(volumes)).flatten(1)

    def tokens(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, n_codebooks, *grid) int64: which entries are at each place."""
        return self.codebooks.tokens(self._encoded(volumes))

    def decode_tokens(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, n_codebooks, *grid) int64 → (B, C, *sides) class logits."""
        return self.decode(self.codebooks.codes(tokens).flatten(1), condition)

    def _encoded(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, code_channels, *grid) float32, before codes take its place."""
        mean, _ = self.posterior(volumes, None)
        return mean.view(len(mean), -1, *self.grid)
