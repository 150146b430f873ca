"""UNIT: translation between two kinds of label volumes that were never paired.

Liu, Breuel & Kautz 2017 (arXiv:1703.00848): a VAE and a critic for each kind, one latent space for
both. The last layer of the encoders and the first of the generators are shared; what goes over to
the other kind and back must be what it was.
"""

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

from foldnorm.models.adversarial_losses import Adversarial, critic_loss, generator_loss
from foldnorm.models.classes import one_hot, straight_through
from foldnorm.models.label_autoencoder import draw_code
from foldnorm.models.losses import (
    class_cross_entropy,
    critic_values,
    gradient_penalty,
    kl_to_standard_normal,
)
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import InputKind, Phase
from foldnorm.models.volume_networks import Critic, FeatureEncoder, FeatureGenerator

KINDS = ("first", "second")
Codes = tuple[Tensor, Tensor]  # mean and log-variance


class UNIT(nn.Module):
    """Two encoders, two generators, two critics, one latent space.

    A batch holds first and second volumes that were drawn apart: nothing can be learned from
    pairs. Codes are maps, so that what is where survives the translation.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: of the cohort's volumes.
        n_pair_classes: of the second volumes.
        reverse: `translate` makes the first kind out of the second; both ways are always trained.
        channels: of encoders and generators, a level each; the layer at the last is shared.
        critic_channels: of the critics, a level each.
        norm: group norm in encoders and generators.
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        penalty_weight: λ of the gradient penalty.
        reconstruction_weight: of the cross entropy of a volume decoded as its own kind, nats a
            voxel.
        cycle_weight: of the cross entropy of a volume that went over and back.
        kl_weight: of the KL terms, nats a voxel.
        adversarial_weight: of the critics' opinion.
    """

    input_kind: InputKind = "unpaired"
    any_sides = False

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        n_pair_classes: int = 3,
        reverse: bool = False,
        channels: Sequence[int] = (32, 64),
        critic_channels: Sequence[int] = (32, 64, 128),
        norm: bool = True,
        adversarial: Adversarial = "wasserstein",
        critic_steps: int = 1,
        penalty_weight: float = 10.0,
        reconstruction_weight: float = 1.0,
        cycle_weight: float = 1.0,
        kl_weight: float = 0.01,
        adversarial_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.shape, self.reverse = tuple(shape), reverse
        self.classes = {"first": n_classes, "second": n_pair_classes}
        self.adversarial: Adversarial = adversarial
        self.critic_steps = critic_steps
        self.penalty_weight = penalty_weight
        self.reconstruction_weight = reconstruction_weight
        self.cycle_weight = cycle_weight
        self.kl_weight = kl_weight
        self.adversarial_weight = adversarial_weight
        width = channels[-1]
        self.encoders = nn.ModuleDict(
            {kind: FeatureEncoder(shape, self.classes[kind], channels, norm) for kind in KINDS}
        )
        self.to_code = nn.Conv3d(width, 2 * width, 1)
        self.from_code = nn.Sequential(nn.Conv3d(width, width, 3, padding=1), nn.LeakyReLU(0.2))
        self.generators = nn.ModuleDict(
            {kind: FeatureGenerator(shape, self.classes[kind], channels, norm) for kind in KINDS}
        )
        self.critics = nn.ModuleDict(
            {kind: Critic(shape, self.classes[kind], critic_channels) for kind in KINDS}
        )
        self.phases: Mapping[str, Phase] = {
            "critics": Phase(("critics",), full_float32=True, penalises_gradient=True),
            "generators": Phase(("encoders", "to_code", "from_code", "generators")),
        }

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the critics' steps, then one of all other networks."""
        del step
        return (*["critics"] * self.critic_steps, "generators")

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of the phase; (B, 2, *sides) uint8 in, drawn apart."""
        del condition
        real = {kind: one_hot(volumes[:, n], self.classes[kind]) for n, kind in enumerate(KINDS)}
        if phase == "critics":
            return self._critics_loss(real, noise)
        return self._generators_loss(real, volumes, noise)

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the translation of each pair, nats a voxel, (B,); never trained on."""
        first, second = volumes.unbind(1)
        source, target = (second, first) if self.reverse else (first, second)
        return class_cross_entropy(self.translate(source).float(), target)

    def translate(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 class numbers → (B, C, *sides) class logits of the other kind."""
        here, there = reversed(KINDS) if self.reverse else KINDS
        mean, _ = self._encoded(one_hot(volumes, self.classes[here]), here)
        return self._decoded(mean, there)

    def _encoded(self, channels: Tensor, kind: str) -> Codes:
        mean, log_variance = self.to_code(self.encoders[kind](channels)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-6, 6)

    def _decoded(self, code: Tensor, kind: str) -> Tensor:
        return self.generators[kind](self.from_code(code))

    def _critics_loss(self, real: Mapping[str, Tensor], noise: StepNoise) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        loss = torch.zeros((), device=noise.device)
        for here, there in (KINDS, KINDS[::-1]):
            with torch.no_grad():
                mean, log_variance = self._encoded(real[here], here)
                code = draw_code(mean, log_variance, noise.normal(*mean.shape[1:]))
                made = straight_through(self._decoded(code, there))
            critic = self.critics[there]
            of_real, of_made = critic_values(critic, real[there], made)
            penalty = gradient_penalty(critic, real[there], made, noise.uniform())
            terms[f"difference_{there}"] = of_real.mean() - of_made.mean()
            terms[f"penalty_{there}"] = penalty
            loss = loss + critic_loss(self.adversarial, of_real, of_made)
            loss = loss + self.penalty_weight * penalty
        return {**terms, "loss": loss}

    def _generators_loss(
        self, real: Mapping[str, Tensor], volumes: Tensor, noise: StepNoise
    ) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        loss = torch.zeros((), device=noise.device)
        for n, (here, there) in enumerate((KINDS, KINDS[::-1])):
            mean, log_variance = self._encoded(real[here], here)
            code = draw_code(mean, log_variance, noise.normal(*mean.shape[1:]))
            own = class_cross_entropy(self._decoded(code, here).float(), volumes[:, n]).mean()
            over = self._decoded(code, there)
            of_made = self.critics[there](straight_through(over)).float()
            mean_back, log_variance_back = self._encoded(torch.softmax(over, dim=1), there)
            code_back = draw_code(mean_back, log_variance_back, noise.normal(*mean.shape[1:]))
            back = self._decoded(code_back, here).float()
            cycle = class_cross_entropy(back, volumes[:, n]).mean()
            kl = self._kl(mean, log_variance) + self._kl(mean_back, log_variance_back)
            adversarial = generator_loss(self.adversarial, of_made)
            terms |= {f"cross_entropy_{here}": own, f"cycle_{here}": cycle, f"kl_{here}": kl,
                      f"adversarial_{there}": adversarial}  # fmt: skip
            loss = loss + (
                self.reconstruction_weight * own
                + self.cycle_weight * cycle
                + self.kl_weight * kl
                + self.adversarial_weight * adversarial
            )
        return {**terms, "loss": loss}

    def _kl(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Nats a voxel."""
        flat = mean.flatten(1), log_variance.flatten(1)
        return kl_to_standard_normal(*flat) / prod(self.shape)
