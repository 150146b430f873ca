"""Wasserstein GAN with gradient penalty and an encoder: a VAE-GAN on label volumes.

Gulrajani et al. 2017 (arXiv:1704.00028) for the critic; Larsen et al. 2016 (arXiv:1512.09300)
for an encoder whose reconstructions *and* prior samples both face the critic, so that codes drawn
from N(0, I) decode to plausible volumes.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from foldnorm.models.classes import one_hot, straight_through, to_classes
from foldnorm.models.losses import (
    class_cross_entropy,
    gradient_penalty,
    kl_to_standard_normal,
    soft_dice_loss,
)
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Phase, Reads
from foldnorm.models.volume_networks import Critic, Encoder, Generator, code_grid


class WGANGP(nn.Module):
    """Encoder → code → generator → class logits, against a critic on one-hot volumes.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in encoder and generator (never in the critic).
        critic_steps: critic steps a generator step.
        reconstruction_steps: steps of cross entropy and KL alone that follow the generator step;
            encoder and generator then learn to reconstruct while the critic's steps are paid for.
        penalty_weight: λ of the gradient penalty.
        cross_entropy_weight: of the reconstruction's class cross entropy, nats a voxel.
        dice_weight: of the soft Dice loss of the highest class (sulcus); 0 leaves it out.
        adversarial_weight: of the critic's opinion in the generator's loss. The critic is
            Lipschitz in root-mean-square distance, so one weight suits all sizes.
        kl_weight: of KL(code ‖ N(0, I)), nats a voxel as the cross entropy: keeps codes close to
            the prior. It is the β of a β-VAE: 1 is the evidence lower bound.
        class_weights: of the cross entropy, by class. Above 1 for sulci thickens them.
        generated: what the critic sees of generated volumes: ``straight-through`` one-hot, or
            ``softmax`` probabilities.
        sampling_rounds: of encoding and decoding again that a drawn volume goes through; see
            `sample`.
    """

    reads: Reads = "volumes"

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        critic_channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        latent_dim: int | None = None,
        norm: bool = False,
        critic_steps: int = 5,
        reconstruction_steps: int = 0,
        penalty_weight: float = 10.0,
        cross_entropy_weight: float = 1.0,
        dice_weight: float = 0.0,
        adversarial_weight: float = 0.1,
        kl_weight: float = 0.3,
        class_weights: Sequence[float] | None = None,
        generated: Literal["straight-through", "softmax"] = "straight-through",
        sampling_rounds: int = 0,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.n_classes = n_classes
        self.critic_steps = critic_steps
        self.reconstruction_steps = reconstruction_steps
        self.penalty_weight = penalty_weight
        self.cross_entropy_weight = cross_entropy_weight
        self.dice_weight = dice_weight
        self.adversarial_weight = adversarial_weight
        self.kl_weight = kl_weight
        self.generated = generated
        self.sampling_rounds = sampling_rounds
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm)
        self.encoder = Encoder(*sizes)
        self.generator = Generator(*sizes)
        self.critic = Critic(shape, n_classes, critic_channels)
        self.latent_dim = latent_dim or code_channels * prod(code_grid(shape, len(channels)))
        self.phases: Mapping[str, Phase] = {
            "critic": Phase(("critic",)),
            "generator": Phase(("encoder", "generator")),
            "reconstruction": Phase(("encoder", "generator")),
        }

    def phase_order(self) -> Sequence[str]:
        """The critic's steps, one of encoder and generator against it, then reconstruction."""
        return (
            *["critic"] * self.critic_steps,
            "generator",
            *["reconstruction"] * self.reconstruction_steps,
        )

    def loss(self, phase: str, volumes: Tensor, noise: StepNoise) -> dict[str, Tensor]:
        """Named terms of the phase; (B, I, J, K) uint8 in."""
        if phase == "critic":
            return self._critic_loss(volumes, noise)
        if phase == "generator":
            return self._generator_loss(volumes, noise)
        return self._reconstruction_loss(volumes, noise)

    def validation_loss(self, volumes: Tensor) -> Tensor:
        """Cross entropy of the reconstruction of each volume, nats a voxel, (B,)."""
        return class_cross_entropy(self.decode(self.encode(volumes)).float(), volumes)

    def encode(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 → (B, latent_dim): the mean of the code."""
        mean, _ = self.encoder(one_hot(volumes, self.n_classes))
        return mean

    def decode(self, codes: Tensor) -> Tensor:
        """(B, latent_dim) → (B, C, I, J, K) class logits."""
        return self.generator(codes)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Volumes that nobody has, (count, I, J, K) uint8.

        A code is drawn from N(0, I) and decoded. What independent codes of neighbouring places
        could not agree on, such as a fold that only one of them holds, then settles in
        ``sampling_rounds`` rounds: encode the volume, draw a code there, decode it. That is the
        Markov chain of Rezende et al. 2014 (arXiv:1401.4082), appendix F, with every voxel drawn;
        it wanders towards what the model takes for likely.
        """
        device = next(self.parameters()).device

        def normal() -> Tensor:
            return torch.randn(1, self.latent_dim, generator=generator).to(device)

        drawn = []
        for _ in range(count):
            volume = to_classes(self.decode(normal()))
            for _ in range(self.sampling_rounds):
                mean, log_variance = self.encoder(one_hot(volume, self.n_classes))
                volume = to_classes(self.decode(_draw(mean, log_variance, normal())))
            drawn.append(volume)
        return torch.cat(drawn)

    def _critic_loss(self, volumes: Tensor, noise: StepNoise) -> dict[str, Tensor]:
        real = one_hot(volumes, self.n_classes)
        with torch.no_grad():
            mean, log_variance = self.encoder(real)
            posterior = _draw(mean, log_variance, noise.normal(self.latent_dim))
            prior = noise.normal(self.latent_dim)
            # Each volume faces the critic as a reconstruction or as a sample, evenly.
            is_prior = noise.uniform(1) < 0.5
            generated = self._shown(self.generator(torch.where(is_prior, prior, posterior)))
        value = self.critic(torch.cat([real, generated]))
        of_real, of_generated = value.float().chunk(2)
        distance = of_real.mean() - of_generated.mean()
        penalty = gradient_penalty(self.critic, real, generated, noise.uniform())
        return {
            "wasserstein": distance,
            "penalty": penalty,
            "loss": self.penalty_weight * penalty - distance,
        }

    def _generator_loss(self, volumes: Tensor, noise: StepNoise) -> dict[str, Tensor]:
        mean, log_variance = self.encoder(one_hot(volumes, self.n_classes))
        posterior = _draw(mean, log_variance, noise.normal(self.latent_dim))
        logits = self.generator(torch.cat([posterior, noise.normal(self.latent_dim)]))
        terms = self._likeness(logits[: len(volumes)], volumes, mean, log_variance)
        adversarial = -self.critic(self._shown(logits)).float().mean()
        loss = terms.pop("loss") + self.adversarial_weight * adversarial
        return {**terms, "adversarial": adversarial, "loss": loss}

    def _reconstruction_loss(self, volumes: Tensor, noise: StepNoise) -> dict[str, Tensor]:
        mean, log_variance = self.encoder(one_hot(volumes, self.n_classes))
        logits = self.generator(_draw(mean, log_variance, noise.normal(self.latent_dim)))
        return self._likeness(logits, volumes, mean, log_variance)

    def _likeness(
        self, logits: Tensor, volumes: Tensor, mean: Tensor, log_variance: Tensor
    ) -> dict[str, Tensor]:
        """The terms that need no critic."""
        entropy = class_cross_entropy(logits.float(), volumes, self.class_weights).mean()
        kl = kl_to_standard_normal(mean, log_variance) / prod(self.shape)
        terms = {"cross_entropy": entropy, "kl": kl}
        loss = self.cross_entropy_weight * entropy + self.kl_weight * kl
        if self.dice_weight:
            sulcus = torch.softmax(logits.float(), dim=1)[:, -1]
            terms["dice_loss"] = soft_dice_loss(sulcus, one_hot(volumes, self.n_classes)[:, -1])
            loss = loss + self.dice_weight * terms["dice_loss"]
        return {**terms, "loss": loss}

    def _shown(self, logits: Tensor) -> Tensor:
        if self.generated == "softmax":
            return torch.softmax(logits, dim=1)
        return straight_through(logits)


def _draw(mean: Tensor, log_variance: Tensor, normal: Tensor) -> Tensor:
    """Code drawn from the encoder's normal, (B, latent_dim) (Kingma & Welling 2014, eq. 4)."""
    return mean + torch.exp(0.5 * log_variance) * normal
