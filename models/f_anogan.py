"""f-AnoGAN: a WGAN-GP trained on noise alone, then an encoder for its frozen generator.

Schlegl et al. 2019 (doi:10.1016/j.media.2019.01.010): the *izi_f* encoder learns image → code →
image, with the difference of the images and of the critic's features. What the generator cannot
make, the encoder cannot bring back, so an anomaly stands out.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from foldnorm.models.adversarial_losses import critic_loss, generator_loss
from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import EncoderInput, one_hot, straight_through, to_classes
from foldnorm.models.encoder_gan import repeat_for_real_and_fake
from foldnorm.models.grids import code_size
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.losses import critic_values, gradient_penalty
from foldnorm.models.named_losses import NamedLoss
from foldnorm.models.named_networks import encoder_from, generator_from
from foldnorm.models.noise import StepNoise, normal_of
from foldnorm.models.protocols import Phase
from foldnorm.models.volume_networks import Critic


class FAnoGAN(LabelAutoencoder):
    """Generator and critic first, the encoder afterwards.

    A step of the second stage has as many encoder steps as one of the first has critic and
    generator steps.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        critic_channels: of the critic, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in encoder and generator (never in the critic).
        critic_steps: critic steps a generator step.
        penalty_weight: λ of the gradient penalty.
        gan_share: of the training that the first stage takes.
        training_steps: taken from ``training.steps``.
        feature_weight: κ of the critic's features in the encoder's loss: of the sharp
            reconstruction, a mean of squares, which is small.
        image_loss: of the encoder: ``cross-entropy`` of the classes, nats a voxel, or the paper's
            mean ``squares`` of the probabilities; or a loss by class path.
        class_weights: of the cross entropy, by class.
        condition: columns of ``participants.tsv`` that the networks are told.
        condition_size: numbers they amount to; taken from the cohort.
        encoder_input: of a volume: each class as 0 and 1, or signed distances to it.
        encoder: by class path, in the place of ours: twice ``latent_dim`` numbers come out.
        generator: likewise: ``latent_dim`` numbers go in, class logits come out.
    """

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
        penalty_weight: float = 10.0,
        gan_share: float = 0.5,
        training_steps: int = 2000,
        feature_weight: float = 3000.0,
        image_loss: Literal["cross-entropy", "squares"] | ClassPath = "cross-entropy",
        class_weights: Sequence[float] | None = None,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        encoder_input: EncoderInput = "one-hot",
        encoder: ClassPath | None = None,
        generator: ClassPath | None = None,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm, condition_size)
        super().__init__(
            encoder_from(encoder, sizes),
            generator_from(generator, sizes),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            class_weights=class_weights,
            condition=condition,
            encoder_input=encoder_input,
        )
        self.critic = Critic(shape, n_classes, critic_channels, condition_size=condition_size)
        self.critic_steps = critic_steps
        self.penalty_weight = penalty_weight
        self.gan_steps = round(gan_share * training_steps)
        self.feature_weight = feature_weight
        self.image_loss = (
            image_loss
            if isinstance(image_loss, str)
            else NamedLoss(image_loss, n_classes, len(shape))
        )
        self.phases: Mapping[str, Phase] = {
            "critic": Phase(("critic",), full_float32=True, penalises_gradient=True),
            "generator": Phase(("generator",)),
            "encoder": Phase(("encoder",)),
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """Critic and generator in the first stage, the encoder afterwards."""
        if step < self.gan_steps:
            return (*["critic"] * self.critic_steps, "generator")
        return ("encoder",) * (self.critic_steps + 1)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of the phase; (B, *sides) uint8 in."""
        if phase == "critic":
            return self._critic_loss(volumes, noise, condition)
        if phase == "generator":
            logits = self.decode(noise.normal(self.latent_dim), condition)
            of_generated = self.critic(straight_through(logits), condition).float()
            return {"loss": generator_loss("wasserstein", of_generated)}
        return self._encoder_loss(volumes, condition)

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Volumes decoded from N(0, I), (count, *sides) uint8."""
        device = next(self.parameters()).device
        drawn = []
        for n in range(count):
            own = None if condition is None else condition[n : n + 1].to(device)
            code = normal_of(generator, (1, self.latent_dim), device)
            drawn.append(to_classes(self.decode(code, own)))
        return torch.cat(drawn)

    def _critic_loss(
        self, volumes: Tensor, noise: StepNoise, condition: Tensor | None
    ) -> dict[str, Tensor]:
        real = one_hot(volumes, self.n_classes)
        with torch.no_grad():
            generated = straight_through(self.decode(noise.normal(self.latent_dim), condition))
        of_both = repeat_for_real_and_fake(condition)
        of_real, of_generated = critic_values(
            lambda volumes: self.critic(volumes, of_both), real, generated
        )
        penalty = gradient_penalty(
            lambda between: self.critic(between, condition), real, generated, noise.uniform()
        )
        loss = critic_loss("wasserstein", of_real, of_generated)
        return {
            "difference": of_real.mean() - of_generated.mean(),
            "penalty": penalty,
            "loss": loss + self.penalty_weight * penalty,
        }

    def _encoder_loss(self, volumes: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        real = one_hot(volumes, self.n_classes)
        logits = self.decode(self.encode(volumes, condition), condition).float()
        if isinstance(self.image_loss, NamedLoss):
            image = self.image_loss(logits, volumes)
        elif self.image_loss == "cross-entropy":
            image = self.reconstruction_terms(logits, volumes)["cross_entropy"]
        else:
            image = (torch.softmax(logits, dim=1) - real).square().mean()
        with torch.no_grad():
            wanted = self.critic.features(real)
        # The critic has seen sharp volumes only: of likelihoods its features would mean nothing.
        features = (self.critic.features(straight_through(logits)) - wanted).square().mean()
        return {
            "image": image,
            "features": features,
            "loss": image + self.feature_weight * features,
        }
