"""The WGAN-GP of the 2021 study, built from its description: as it was, for cost; and corrected.

Encoder conv3 1→8, then three conv4 of stride 3 (8→16→32→64), flattened to 1728; generator dense
1728→128×10³, then three stages of upsampling by 2 and convolution; critic dense
512000→512→256→1. 483 million parameters, nearly all in two dense layers.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.encoder_gan import EncoderGAN
from foldnorm.models.volume_networks import soft_bound

SIDE, CODE, GRID = 80, 1728, 10


class StudyEncoder(nn.Module):
    """(B, 1, 80, 80, 80) → (B, 1728)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 16, 32, 64)
        layers: list[nn.Module] = [nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU()]
        for a, b in pairwise(widths):
            layers += [nn.Conv3d(a, b, 4, stride=3, padding=1), nn.BatchNorm3d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, volume: Tensor) -> Tensor:
        """Flattened last map."""
        return self.layers(volume).flatten(1)


class StudyGenerator(nn.Module):
    """(B, 1728) → (B, 3, 80, 80, 80)."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(CODE, 128 * GRID**3)
        up = nn.Upsample(scale_factor=2)
        self.layers = nn.Sequential(
            up, nn.Conv3d(128, 128, 3, padding=1), nn.BatchNorm3d(128), nn.ReLU(),
            up, nn.Conv3d(128, 64, 3, padding=1), nn.BatchNorm3d(64), nn.ReLU(),
            up, nn.Conv3d(64, 3, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, code: Tensor) -> Tensor:
        """Bounded logits."""
        return self.layers(self.dense(code).view(-1, 128, GRID, GRID, GRID))


class StudyCritic(nn.Module):
    """(B, 1, 80, 80, 80) → (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(SIDE**3, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, volume: Tensor) -> Tensor:
        """Unbounded value."""
        return self.layers(volume.flatten(1)).squeeze(1)


class StudyTraining:
    """One step of the study: five critic steps, one of the generator, one of the encoder."""

    def __init__(self, critic_steps: int = 5) -> None:
        self.encoder, self.generator = StudyEncoder(), StudyGenerator()
        self.critic, self.critic_steps = StudyCritic(), critic_steps
        adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
        self.of_critic = torch.optim.Adam(self.critic.parameters(), **adam)  # type: ignore[arg-type]
        parameters = [*self.encoder.parameters(), *self.generator.parameters()]
        self.of_generator = torch.optim.Adam(parameters, **adam)  # type: ignore[arg-type]

    def step(self, volumes: Tensor) -> None:
        """Train on (B, 80, 80, 80) class numbers."""
        real = volumes[:, None].float()
        for _ in range(self.critic_steps):
            with torch.no_grad():
                generated = self.generator(self.encoder(real)).argmax(1, keepdim=True).float()
            mix = torch.rand(len(real), 1, 1, 1, 1)
            between = (mix * real + (1 - mix) * generated).requires_grad_()
            (gradient,) = torch.autograd.grad(
                self.critic(between).sum(), between, create_graph=True
            )
            penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
            loss = self.critic(generated).mean() - self.critic(real).mean() + 10 * penalty
            self.of_critic.zero_grad()
            loss.backward()
            self.of_critic.step()
        logits = self.generator(self.encoder(real))
        value = self.critic(logits.argmax(1, keepdim=True).float()).mean()
        loss = F.cross_entropy(logits, volumes.long()) - value
        self.of_generator.zero_grad()
        loss.backward()
        self.of_generator.step()


class CorrectedStudy(EncoderGAN):
    """The study's network for 40³ volumes, its errors corrected, for ``foldnorm train``.

    Widths, code (64 × 3³) and critic are those of the study; strides and the generator's first grid
    are of half its sides. Corrected: the encoder trains, nothing ends in a norm or is bounded, the
    last layer works at full resolution, the critic gets one-hot volumes that carry a gradient, and
    classes weigh the same.
    """

    def __init__(self, shape: Sequence[int], n_classes: int = 3, critic_steps: int = 5) -> None:
        if tuple(shape) != (40, 40, 40):
            raise ValueError(f"built for volumes of 40³, got {tuple(shape)}")
        super().__init__(
            CorrectedEncoder(n_classes),
            CorrectedGenerator(n_classes),
            CorrectedCritic(n_classes * 40**3),
            shape,
            n_classes,
            CODE,
            adversarial="wasserstein",
            critic_steps=critic_steps,
            penalty_weight=10.0,
        )


class CorrectedEncoder(nn.Module):
    """(B, C, 40, 40, 40) → mean and log-variance, (B, 1728) each."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv3d(n_classes, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(),
        ]  # fmt: skip
        for (a, b), stride in zip(pairwise((8, 16, 32)), (2, 3), strict=True):
            layers += [nn.Conv3d(a, b, 4, stride, padding=1), nn.BatchNorm3d(b), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv3d(32, 2 * 64, 4, 2, padding=1))

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute mean and log-variance of a code from the last map."""
        del condition
        mean, log_variance = self.layers(volume).chunk(2, dim=1)
        return mean.flatten(1), soft_bound(log_variance.flatten(1))


class CorrectedGenerator(nn.Module):
    """(B, 1728) → (B, C, 40, 40, 40)."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(CODE, 128 * 5**3)
        up = nn.Upsample(scale_factor=2)
        self.layers = nn.Sequential(
            up, nn.Conv3d(128, 128, 3, padding=1), nn.BatchNorm3d(128), nn.ReLU(),
            up, nn.Conv3d(128, 64, 3, padding=1), nn.BatchNorm3d(64), nn.ReLU(),
            up, nn.Conv3d(64, n_classes, 3, padding=1),
        )  # fmt: skip

    def forward(self, code: Tensor, condition: Tensor | None = None) -> Tensor:
        """Unbounded logits."""
        del condition
        return self.layers(self.dense(code).view(-1, 128, 5, 5, 5))


class CorrectedCritic(nn.Module):
    """(B, C, 40, 40, 40) → (B,)."""

    def __init__(self, voxels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(voxels, 512), nn.LeakyReLU(0.2), nn.Linear(512, 256), nn.LeakyReLU(0.2),
            nn.Linear(256, 1),
        )  # fmt: skip

    def forward(self, volume: Tensor, condition: Tensor | None = None) -> Tensor:
        """Unbounded value."""
        del condition
        return self.layers(volume.flatten(1)).squeeze(1)
