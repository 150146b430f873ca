"""Training steps of generative adversarial networks with an encoder.

Larsen et al. 2016 (arXiv:1512.09300): reconstructions *and* volumes decoded from N(0, I) both face
the critic, so that codes drawn from the prior decode to plausible volumes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from foldnorm.models.adversarial_losses import (
    Adversarial,
    clip_weights,
    critic_loss,
    generator_loss,
)
from foldnorm.models.classes import straight_through
from foldnorm.models.label_autoencoder import VariationalAutoencoder, draw_code
from foldnorm.models.losses import critic_values, gradient_penalty
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Phase

Generated = Literal["straight-through", "softmax"]


class EncoderGAN(VariationalAutoencoder):
    """Encoder → code → generator → class logits, against a critic on one-hot volumes.

    Args:
        encoder: see `LabelAutoencoder`.
        generator: likewise.
        critic: (B, C, *sides) → (B,), unbounded; the condition is its second argument.
        shape: sides of the volumes.
        n_classes: C.
        latent_dim: size of the code.
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        reconstruction_steps: steps of cross entropy and KL alone that follow the generator step;
            encoder and generator then learn to reconstruct while the critic's steps are paid for.
        adversarial_weight: of the critic's opinion in the generator's loss.
        penalty_weight: λ of the gradient penalty; 0 leaves it out.
        clip: bound of the critic's weights, kept after each of its steps; 0 leaves it out.
        generated: what the critic sees of generated volumes: ``straight-through`` one-hot, or
            ``softmax`` probabilities.
        others: see `VariationalAutoencoder` and `LabelAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        generator: nn.Module,
        critic: nn.Module,
        shape: Sequence[int],
        n_classes: int,
        latent_dim: int,
        *,
        adversarial: Adversarial = "non-saturating",
        critic_steps: int = 1,
        reconstruction_steps: int = 0,
        adversarial_weight: float = 0.1,
        penalty_weight: float = 0.0,
        clip: float = 0.0,
        generated: Generated = "straight-through",
        **others: Any,
    ) -> None:
        if penalty_weight and any(isinstance(part, _BatchNorm) for part in critic.modules()):
            raise ValueError(
                "critic: expected no batch norm where its gradient is penalised, for a volume's "
                "gradient then depends on the others (norm: instance)"
            )
        super().__init__(encoder, generator, shape, n_classes, latent_dim, **others)
        self.critic = critic
        self.adversarial: Adversarial = adversarial
        self.critic_steps = critic_steps
        self.reconstruction_steps = reconstruction_steps
        self.adversarial_weight = adversarial_weight
        self.penalty_weight = penalty_weight
        self.clip = clip
        self.generated = generated
        self.phases: Mapping[str, Phase] = {
            "critic": Phase(
                ("critic",), full_float32=True, penalises_gradient=bool(penalty_weight)
            ),
            "generator": Phase(("encoder", "generator")),
            "reconstruction": Phase(("encoder", "generator")),
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the critic's steps, one of encoder and generator, then those of reconstruction."""
        del step
        return (
            *["critic"] * self.critic_steps,
            "generator",
            *["reconstruction"] * self.reconstruction_steps,
        )

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of the phase; (B, *sides) uint8 in, (B, 2, *sides) with edits."""
        volumes, edited = self.split_edited(volumes)
        if phase == "critic":
            return self._critic_loss(volumes, noise, condition)
        play = self._generator_loss if phase == "generator" else self._reconstruction_loss
        return self.add_separation_loss(play(volumes, noise, condition), volumes, edited, condition)

    def after_step(self, phase: str) -> None:
        """Clip the critic's weights, if they are bounded."""
        if phase == "critic" and self.clip:
            clip_weights(self.critic, self.clip)

    def _critic_loss(
        self, volumes: Tensor, noise: StepNoise, condition: Tensor | None
    ) -> dict[str, Tensor]:
        real = self.to_critic_input(volumes)
        with torch.no_grad():
            mean, log_variance = self.posterior(volumes, condition)
            posterior = draw_code(mean, log_variance, noise.normal(self.latent_dim))
            prior = noise.normal(self.latent_dim)
            # Each volume faces the critic as a reconstruction or as a sample, evenly.
            is_prior = noise.uniform(1) < 0.5
            code = torch.where(is_prior, prior, posterior)
            generated = self.sharpened(self.decode(code, condition))
        of_both = repeat_for_real_and_fake(condition)
        of_real, of_generated = critic_values(
            lambda volumes: self.critic(volumes, of_both), real, generated
        )
        loss = critic_loss(self.adversarial, of_real, of_generated)
        # How far apart the critic holds the two; with the Wasserstein loss, its distance.
        terms = {"difference": of_real.mean() - of_generated.mean()}
        if self.penalty_weight:
            penalty = gradient_penalty(
                lambda between: self.critic(between, condition), real, generated, noise.uniform()
            )
            terms["penalty"] = penalty
            loss = loss + self.penalty_weight * penalty
        return {**terms, "loss": loss}

    def _generator_loss(
        self, volumes: Tensor, noise: StepNoise, condition: Tensor | None
    ) -> dict[str, Tensor]:
        mean, log_variance = self.posterior(volumes, condition)
        posterior = draw_code(mean, log_variance, noise.normal(self.latent_dim))
        codes = torch.cat([posterior, noise.normal(self.latent_dim)])
        logits = self.decode(codes, repeat_for_real_and_fake(condition))
        terms = self.variational_terms(logits[: len(volumes)], volumes, mean, log_variance)
        of_generated = self.critic(
            self.sharpened(logits), repeat_for_real_and_fake(condition)
        ).float()
        adversarial = generator_loss(self.adversarial, of_generated)
        loss = terms.pop("loss") + self.adversarial_weight * adversarial
        return {**terms, "adversarial": adversarial, "loss": loss}

    def _reconstruction_loss(
        self, volumes: Tensor, noise: StepNoise, condition: Tensor | None
    ) -> dict[str, Tensor]:
        mean, log_variance = self.posterior(volumes, condition)
        code = draw_code(mean, log_variance, noise.normal(self.latent_dim))
        logits = self.decode(code, condition)
        return self.variational_terms(logits, volumes, mean, log_variance)

    def sharpened(self, logits: Tensor) -> Tensor:
        """Turn a generator's logits into the critic's input, (B, C, *sides); gradients pass."""
        if self.generated == "softmax":
            return torch.softmax(logits, dim=1)
        return straight_through(logits)


def repeat_for_real_and_fake(condition: Tensor | None) -> Tensor | None:
    """Repeat the condition for real and for generated volumes: (B, n) → (2 B, n)."""
    return None if condition is None else torch.cat([condition, condition])
