"""A plain autoencoder: what a code can bring back when nothing else is asked of it."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import EncoderInput
from foldnorm.models.grids import code_size
from foldnorm.models.label_autoencoder import LabelAutoencoder
from foldnorm.models.named_networks import encoder_from, generator_from
from foldnorm.models.noise import StepNoise
from foldnorm.models.protocols import Phase


class Autoencoder(LabelAutoencoder):
    """Encoder and generator, cross entropy alone, no noise.

    It encodes and decodes; what codes look like is left to the data, so it draws nothing.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        channels: of encoder and generator, a level each.
        code_channels: of the map that is the code (or from which a dense layer makes it).
        latent_dim: size of the code; None: the map itself.
        norm: group norm in both networks.
        class_weights: of the cross entropy, by class.
        dice_weight: of the soft Dice loss of the highest class.
        condition: columns of ``participants.tsv`` that the networks are told.
        condition_size: numbers they amount to; taken from the cohort.
        encoder_input: of a volume: each class as 0 and 1, or signed distances to it.
        encoder: by class path, in the place of ours: twice ``latent_dim`` numbers come out.
        generator: likewise: ``latent_dim`` numbers go in, class logits come out.
        loss_function: see `LabelAutoencoder`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        channels: Sequence[int] = (32, 64, 128),
        code_channels: int = 16,
        latent_dim: int | None = None,
        norm: bool = False,
        class_weights: Sequence[float] | None = None,
        dice_weight: float = 0.0,
        condition: Sequence[str] = (),
        condition_size: int = 0,
        encoder_input: EncoderInput = "one-hot",
        encoder: ClassPath | None = None,
        generator: ClassPath | None = None,
        loss_function: ClassPath | None = None,
    ) -> None:
        sizes = (shape, n_classes, channels, code_channels, latent_dim, norm, condition_size)
        super().__init__(
            encoder_from(encoder, sizes),
            generator_from(generator, sizes),
            shape,
            n_classes,
            latent_dim or code_size(shape, len(channels), code_channels),
            class_weights=class_weights,
            dice_weight=dice_weight,
            condition=condition,
            encoder_input=encoder_input,
            loss_function=loss_function,
        )
        self.phases: Mapping[str, Phase] = {"reconstruction": Phase(("encoder", "generator"))}

    def phase_order(self, step: int) -> Sequence[str]:
        """One step of both networks."""
        del step
        return ("reconstruction",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy; (B, *sides) uint8 in."""
        del phase, noise
        return self.reconstruction_terms(
            self.decode(self.encode(volumes, condition), condition), volumes
        )
