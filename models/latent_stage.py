"""Mixin that makes a diffusion model one of an autoencoder's codes.

Rombach et al. 2022 (arXiv:2112.10752): an autoencoder first, then diffusion of its codes. Codes
that are drawn from N(0, I) place by place do not agree with their neighbours; a diffusion of the
whole map learns what goes with what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from foldnorm.models.class_paths import NETWORKS, ClassPath, ClassPathError, build
from foldnorm.models.code_scale import CodeScale
from foldnorm.models.diffusion import Diffusion
from foldnorm.models.grids import ShapeError
from foldnorm.models.label_autoencoder import VariationalAutoencoder, draw_code
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import HasPostStep, InputKind, Phase
from foldnorm.models.volume_networks import Encoder

MEASURED_STEPS = 50  # of the second stage, whose codes say how codes are normalised
SHARED = ("shape", "condition", "condition_size")  # arguments of both stages, by the same names


class LatentStage(Diffusion):
    """Volume → code → volume in a first stage of the training, noise → code in a second.

    It stands before the diffusion model among the base classes.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_channels: classes; taken from the cohort.
        first_stage: autoencoder of labels by class path, whose code is a map, such as
            ``foldnorm.models.BetaVAE``.
        autoencoder_share: of the training that the first stage takes; 0 for one that starts from
            the weights of a trained autoencoder.
        sheet_margin: of what is drawn, in the autoencoder's units; None: its own.
        training_steps: taken from ``training.steps``.
        condition: columns of ``participants.tsv`` that autoencoder and diffusion are told.
        condition_size: numbers they amount to; taken from the cohort.
        others: of the diffusion, whose sides are those of the code's map.
    """

    input_kind: InputKind = "volumes"

    def __init__(
        self,
        shape: Sequence[int],
        n_channels: int = 3,
        *,
        first_stage: ClassPath,
        autoencoder_share: float = 0.4,
        sheet_margin: float | None = None,
        training_steps: int = 1,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        **others: Any,
    ) -> None:
        if not 0 <= autoencoder_share < 1:
            raise ValueError(f"autoencoder_share: expected 0 to below 1, got {autoencoder_share:g}")
        autoencoder_steps = round(autoencoder_share * training_steps)
        of_both: dict[str, Any] = {"condition": condition, "condition_size": condition_size}
        filled = {"shape": shape, "n_classes": n_channels, **of_both}
        filled["training_steps"] = autoencoder_steps
        with torch.device("meta"):  # no weights: those of the network are drawn first
            _, grid, code_channels = _built(first_stage, filled)
        try:
            super().__init__(grid, code_channels, **of_both, **others)
        except ShapeError as error:
            if not (multiple := error.multiple * (shape[0] // grid[0])):
                raise
            raise ShapeError(
                f"volumes of {tuple(shape)} voxels, with codes of {tuple(grid)} places, do not "
                f"suit the levels of the network: each side must be a multiple of {multiple} "
                f"(preprocess --pad multiple:{multiple})",
                multiple,
            ) from None
        self.autoencoder = autoencoder = _built(first_stage, filled)[0]
        self.scale = CodeScale(code_channels)
        self.latent_dim = autoencoder.latent_dim
        self.sheet_margin = autoencoder.sheet_margin if sheet_margin is None else sheet_margin
        self.autoencoder_steps = autoencoder_steps
        self._last: Tensor | None = None  # codes by which others are normalised after the step
        if autoencoder_steps:
            self.phases = {**_phases_of(autoencoder), **self.phases}

    @property
    def first_stage(self) -> type[nn.Module]:
        """Class of the autoencoder."""
        return type(self.autoencoder)

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the autoencoder's phase in the first stage, the diffusion's afterwards."""
        if step < self.autoencoder_steps:
            return self.autoencoder.phase_order(step)
        return super().phase_order(step)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of the phase; (B, *sides) uint8 in."""
        if phase in self.autoencoder.phases:
            return self.autoencoder.loss(phase, volumes, noise, condition)
        return super().loss(phase, volumes, noise, condition)

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Loss of the autoencoder and squared error of the diffusion, (B,).

        Both, so that the first stage does not end with the best figure of all.
        """
        entropy = self.autoencoder.validation_loss(volumes, condition)
        return entropy + super().validation_loss(volumes, condition)

    def after_step(self, phase: str) -> None:
        """Have what codes are normalised by follow the codes of the step."""
        if phase in self.autoencoder.phases:
            if isinstance(self.autoencoder, HasPostStep):
                self.autoencoder.after_step(phase)
        elif self._last is not None:
            self.scale.measure(self._last)
            self._last = None

    def first_stage_config(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of a model's configuration that is the autoencoder's."""
        given = model["init_args"]
        named = given["first_stage"]
        of_both = {name: given[name] for name in SHARED}
        arguments = {"n_classes": given["n_channels"], **of_both, **(named.get("init_args") or {})}
        return {"class_path": named["class_path"], "init_args": arguments}

    def load_first_stage(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained autoencoder."""
        self.autoencoder.load_state_dict(state)

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
        """Encode (B, *sides) uint8 as (B, code_channels, *grid), normalised.

        Drawn from what the encoder says, or without noise its means.
        """
        code, log_variance = self.autoencoder.posterior(volumes, condition)
        if noise is not None:
            code = draw_code(code, log_variance, noise.normal(self.latent_dim))
        code = code.view(-1, self.n_channels, *self.shape)
        if noise is not None and noise.step < self.autoencoder_steps + MEASURED_STEPS:
            self._last = code
        return self.scale.normalised(code)

    @torch.no_grad()
    def to_output(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """Decode normalised codes, (B, code_channels, *grid), to volumes, (B, *sides) uint8."""
        codes = self.scale.restored(x).flatten(1).to(next(self.autoencoder.parameters()).device)
        logits = self.autoencoder.decode(codes, condition)
        return self.autoencoder.to_drawn(logits, self.sheet_margin)


def _built(
    first_stage: ClassPath, filled: Mapping[str, Any]
) -> tuple[VariationalAutoencoder, Sequence[int], int]:
    """Build the autoencoder; also the sides of its code's map, and its channels.

    Raises:
        ValueError: the class cannot be built, or has no such code.
    """
    try:
        found = build(first_stage, NETWORKS, filled)
    except ClassPathError as error:
        raise ClassPathError(f"first_stage: {error}") from None
    encoder = found.encoder if isinstance(found, VariationalAutoencoder) else None
    if not isinstance(encoder, Encoder) or encoder.to_code is not None:
        raise ValueError(
            "first_stage: expected a variational autoencoder whose code is a map (latent_dim: "
            f"null), such as foldnorm.models.BetaVAE, got {first_stage['class_path']}"
        )
    assert isinstance(found, VariationalAutoencoder)
    return found, encoder.grid, found.latent_dim // prod(encoder.grid)


def _phases_of(autoencoder: VariationalAutoencoder) -> dict[str, Phase]:
    """Phases of the first stage, which each train a part of the autoencoder as a whole.

    Raises:
        ValueError: a step of it has several, and one of the second stage has but one.
    """
    order = autoencoder.phase_order(0)
    if len(order) != 1:
        raise ValueError(
            f"first_stage: {type(autoencoder).__name__} trains in {len(order)} phases a step; "
            "train it by itself, then start from its run: --weights RUN and autoencoder_share 0"
        )
    own = autoencoder.phases
    return {name: replace(own[name], networks=("autoencoder",)) for name in order}
