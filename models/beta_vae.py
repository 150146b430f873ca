"""β-VAE on label volumes.

Kingma & Welling 2014 (arXiv:1312.6114); Higgins et al. 2017 for β; Bowman et al. 2016
(arXiv:1511.06349) for letting the KL term grow, so that the code is used before it is paid for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.grids import code_size
from foldnorm.models.label_autoencoder import VariationalAutoencoder, draw_code
from foldnorm.models.named_networks import encoder_from, generator_from
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Phase
from foldnorm.models.volume_networks import Encoder, Generator


class BetaVAE(VariationalAutoencoder):
    """Encoder and generator, cross entropy and KL.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in both networks.
        kl_annealing: share of the training over which the KL term's weight grows from 0 to
            ``kl_weight``, β.
        training_steps: taken from ``training.steps``.
        condition: columns of ``participants.tsv`` that the networks are told.
        condition_size: numbers they amount to; taken from the cohort.
        encoder: by class path, in the place of ours: twice ``latent_dim`` numbers come out.
        generator: likewise: ``latent_dim`` numbers go in, class logits come out.
        others: see `VariationalAutoencoder` and `LabelAutoencoder`.
    """

    own_encoder: type[Encoder] = Encoder  # where the configuration names no other
    own_generator: type[Generator] = Generator

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        latent_dim: int | None = None,
        norm: bool = False,
        kl_annealing: float = 0.0,
        training_steps: int = 1,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        encoder: ClassPath | None = None,
        generator: ClassPath | None = None,
        **others: Any,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm, condition_size)
        super().__init__(
            encoder_from(encoder, sizes, self.own_encoder),
            generator_from(generator, sizes, self.own_generator),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            condition=condition,
            **others,
        )
        self.annealing_steps = kl_annealing * training_steps
        self.phases: Mapping[str, Phase] = {"reconstruction": Phase(("encoder", "generator"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of both networks."""
        del step
        return ("reconstruction",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy and KL; (B, *sides) uint8 in, (B, 2, *sides) with edits."""
        del phase
        volumes, edited = self.split_edited(volumes)
        mean, log_variance = self.posterior(volumes, condition)
        code = draw_code(mean, log_variance, noise.normal(self.latent_dim))
        logits = self.decode(code, condition)
        share = min((noise.step + 1) / max(self.annealing_steps, 1), 1)
        terms = self.variational_terms(logits, volumes, mean, log_variance, kl_share=share)
        return self.add_separation_loss(terms, volumes, edited, condition)
