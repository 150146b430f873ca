"""Base classes of models that encode a label volume and decode its code again."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from foldnorm.models.class_paths import ClassPath
from foldnorm.models.classes import EncoderInput, encode_input, one_hot, to_classes
from foldnorm.models.edited_volumes import check_edits
from foldnorm.models.losses import (
    class_cross_entropy,
    class_weights_of,
    hypersphere_loss,
    kl_to_standard_normal,
    soft_dice_loss,
)
from foldnorm.models.named_losses import named_loss
from foldnorm.models.noise import StepNoise, normal_of
from foldnorm.models.protocols import EditKind, InputKind, Phase
from foldnorm.models.volume_networks import Encoder, FeatureEncoder


class LabelAutoencoder(nn.Module):
    """Encoder → code → generator → class logits, and the loss of the reconstruction.

    Args:
        encoder: (B, C, *sides) one-hot → mean and log-variance of the code, (B, latent_dim) each.
        generator: (B, latent_dim) → (B, C, *sides) logits.
        shape: sides of the volumes.
        n_classes: C.
        latent_dim: size of the code.
        cross_entropy_weight: of the reconstruction's class cross entropy, nats a voxel, or of
            ``loss_function``.
        dice_weight: of the soft Dice loss of the highest class (sulcus); 0 leaves it out.
        class_weights: of the cross entropy, by class. Above 1 for sulci thickens them.
        condition: columns of ``participants.tsv`` that encoder and generator are told; they take
            (B, condition_size) as a second argument then.
        encoder_input: of a volume: each class as 0 and 1, or signed distances to it.
        loss_function: of the reconstruction, by class path, such as ``monai.losses.DiceCELoss``; it
            takes the place of the cross entropy and of what weights it.
    """

    input_kind: InputKind = "volumes"
    phases: Mapping[str, Phase]
    sheet_margin = 0.0  # see `DrawsThickSheets`
    sharpness = 1.0  # logits of a sheet_margin of 1

    def __init__(
        self,
        encoder: nn.Module,
        generator: nn.Module,
        shape: Sequence[int],
        n_classes: int,
        latent_dim: int,
        *,
        cross_entropy_weight: float = 1.0,
        dice_weight: float = 0.0,
        class_weights: Sequence[float] | None = None,
        condition: Sequence[str] = (),
        encoder_input: EncoderInput = "one-hot",
        loss_function: ClassPath | None = None,
    ) -> None:
        super().__init__()
        self.loss_function = named_loss(
            loss_function, n_classes, len(shape), dice_weight, class_weights
        )
        self.condition = tuple(condition)
        self.encoder_input: EncoderInput = encoder_input
        self.encoder, self.generator = encoder, generator
        self.shape = tuple(shape)
        self.n_classes, self.latent_dim = n_classes, latent_dim
        self.cross_entropy_weight = cross_entropy_weight
        self.dice_weight = dice_weight
        weights = class_weights_of(class_weights, n_classes)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the names of the phases of a step, in order."""
        raise NotImplementedError

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the named terms of a phase; (B, *sides) uint8 in."""
        raise NotImplementedError

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Cross entropy of the reconstruction of each volume, nats a voxel, (B,)."""
        logits = self.decode(self.encode(volumes, condition), condition)
        return class_cross_entropy(logits.float(), volumes)

    def encode(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """(B, *sides) uint8 → (B, latent_dim): the mean of the code."""
        mean, _ = self.posterior(volumes, condition, feature_maps)
        return mean

    def posterior(
        self,
        volumes: Tensor,
        condition: Tensor | None,
        feature_maps: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, *sides) uint8 → mean and log-variance of the code, (B, latent_dim) each."""
        known = {"maps": feature_maps} if feature_maps else {}  # a dense encoder has none
        return self.encoder(self.to_encoder_input(volumes), condition, **known)

    def feature_maps(self, volumes: Tensor, condition: Tensor | None = None) -> Sequence[Tensor]:
        """(B, *sides) uint8 → the map of each level of the encoder; none of a dense one."""
        del condition
        if not isinstance(self.encoder, FeatureEncoder):
            return []
        return self.encoder.maps(self.to_encoder_input(volumes))

    def to_encoder_input(self, volumes: Tensor) -> Tensor:
        """Turn (B, *sides) uint8 into the encoder's input, (B, C, *sides) channels."""
        return encode_input(volumes, self.n_classes, self.encoder_input)

    def to_critic_input(self, volumes: Tensor) -> Tensor:
        """Turn (B, *sides) uint8 into the critic's input, (B, C, *sides) channels."""
        return one_hot(volumes, self.n_classes)

    def to_output(self, logits: Tensor) -> Tensor:
        """Turn what was decoded, (B, C, *sides), into volumes, (B, *sides) uint8."""
        return to_classes(logits)

    def to_drawn(self, logits: Tensor, sheet_margin: float | None = None) -> Tensor:
        """Turn what was decoded of a drawn code, (B, C, *sides), into volumes, likewise.

        With a sheet margin, sheets are to be mended and thinned: a code that was drawn says less
        well where a sheet is than that it is near, and without they would have holes.

        Args:
            logits: of each class.
            sheet_margin: of whoever drew the code; None: our own.
        """
        margin = self.sheet_margin if sheet_margin is None else sheet_margin
        if not margin:
            return self.to_output(logits)
        nearer = torch.zeros(self.n_classes, device=logits.device)
        nearer[-1] = self.sharpness * margin
        return self.to_output(logits + nearer.view(-1, *[1] * (logits.ndim - 2)))

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, *sides) class logits."""
        return self.generator(codes, condition)

    def reconstruction_terms(self, logits: Tensor, volumes: Tensor) -> dict[str, Tensor]:
        """Compute the terms of a reconstruction, and their weighted sum as ``"loss"``.

        Args:
            logits: (B, C, *sides) of the reconstruction.
            volumes: (B, *sides) uint8.
        """
        if self.loss_function is not None:
            unlike = self.loss_function(logits, volumes)
            return {"loss_function": unlike, "loss": self.cross_entropy_weight * unlike}
        entropy = class_cross_entropy(logits.float(), volumes, self.class_weights).mean()
        terms, loss = {"cross_entropy": entropy}, self.cross_entropy_weight * entropy
        if self.dice_weight:
            sulcus = torch.softmax(logits.float(), dim=1)[:, -1]
            terms["dice_loss"] = soft_dice_loss(sulcus, one_hot(volumes, self.n_classes)[:, -1])
            loss = loss + self.dice_weight * terms["dice_loss"]
        return {**terms, "loss": loss}


class VariationalAutoencoder(LabelAutoencoder):
    """A `LabelAutoencoder` whose codes stay close to N(0, I), from which volumes are drawn.

    Args:
        encoder: see `LabelAutoencoder`; likewise what follows.
        generator: see there.
        shape: see there.
        n_classes: see there.
        latent_dim: see there.
        kl_weight: of KL(code ‖ N(0, I)), nats a voxel as the cross entropy. It is the β of a
            β-VAE: 1 is the evidence lower bound.
        free_nats: that each dimension may hold before the KL term counts, lest it empties it.
        sampling_rounds: of encoding and decoding again that a drawn volume goes through; see
            `sample`.
        sheet_margin: logits by which another class may be likelier than the highest one (sulcus)
            where that is drawn; its sheets are mended and thinned afterwards. 0: drawn volumes stay
            as they are decoded.
        edits: of training volumes, as `EditedVolumes` has them. With any, codes are also trained to
            lie near 0 where a volume is healthy and away from it where something was edited, which
            needs a code that is a map. Reconstruction is that of healthy volumes.
        max_edits: of a volume, see there.
        radii: of edits, see there.
        separation_weight: of `hypersphere_loss`.
        others: the weights of `LabelAutoencoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        generator: nn.Module,
        shape: Sequence[int],
        n_classes: int,
        latent_dim: int,
        *,
        kl_weight: float = 0.3,
        free_nats: float = 0.0,
        sampling_rounds: int = 0,
        sheet_margin: float = 0.0,
        edits: Sequence[EditKind] = (),
        max_edits: int = 3,
        radii: Sequence[float] = (4.0, 16.0),
        separation_weight: float = 0.3,
        **others: Any,
    ) -> None:
        super().__init__(encoder, generator, shape, n_classes, latent_dim, **others)
        self.healthy_grid: tuple[int, ...] = ()
        if edits:
            check_edits(edits, max_edits, radii)
            if not isinstance(encoder, Encoder) or encoder.to_code is not None:
                raise ValueError("edits: need a code that is a map, latent_dim: null")
            self.input_kind = "edits"
            self.healthy_grid = tuple(encoder.grid)
        self.edits, self.max_edits, self.radii = tuple(edits), max_edits, tuple(radii)
        self.separation_weight = separation_weight
        self.kl_weight = kl_weight
        self.free_nats = free_nats
        self.sampling_rounds = sampling_rounds
        self.sheet_margin = sheet_margin

    def split_edited(self, volumes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Split a batch into healthy volumes, (B, *sides), and edited ones; None without edits."""
        if not self.edits:
            return volumes, None
        edited, healthy = volumes.unbind(1)
        return healthy, edited

    def add_separation_loss(
        self,
        terms: dict[str, Tensor],
        healthy: Tensor,
        edited: Tensor | None,
        condition: Tensor | None,
    ) -> dict[str, Tensor]:
        """Add the loss that separates edited from healthy places, if there are edited volumes."""
        if edited is None:
            return terms
        assert isinstance(self.encoder, Encoder)
        mean, _ = self.posterior(edited, condition)
        code = mean.view(len(mean), -1, *self.encoder.grid)
        separation = hypersphere_loss(code, edited != healthy).mean()
        loss = terms["loss"] + self.separation_weight * separation
        return {**terms, "separation": separation, "loss": loss}

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw new volumes, (count, *sides) uint8.

        A code is drawn from N(0, I) and decoded. What independent codes of neighbouring places
        could not agree on, such as a fold that only one of them holds, then settles in
        ``sampling_rounds`` rounds: encode the volume, draw a code there, decode it. That is the
        Markov chain of Rezende et al. 2014 (arXiv:1401.4082), appendix F, with every voxel drawn;
        it wanders towards what the model takes for likely.
        """
        device = next(self.parameters()).device

        def normal() -> Tensor:
            return normal_of(generator, (1, self.latent_dim), device)

        drawn = []
        for n in range(count):
            own = None if condition is None else condition[n : n + 1].to(device)
            logits = self.decode(normal(), own)
            for _ in range(self.sampling_rounds):
                mean, log_variance = self.posterior(self.to_output(logits), own)
                logits = self.decode(draw_code(mean, log_variance, normal()), own)
            drawn.append(self.to_drawn(logits))
        return torch.cat(drawn)

    def variational_terms(
        self,
        logits: Tensor,
        volumes: Tensor,
        mean: Tensor,
        log_variance: Tensor,
        *,
        kl_share: float = 1.0,
    ) -> dict[str, Tensor]:
        """Compute `reconstruction_terms` and the KL term, with their weighted sum as ``"loss"``.

        Args:
            logits: (B, C, *sides) of the reconstruction.
            volumes: (B, *sides) uint8.
            mean: (B, latent_dim) of the code.
            log_variance: (B, latent_dim).
            kl_share: of the KL term's weight, while it is annealed.
        """
        terms = self.reconstruction_terms(logits, volumes)
        nats = kl_to_standard_normal(mean, log_variance, free_nats=self.free_nats)
        kl = nats / prod(self.shape)
        loss = terms.pop("loss") + self.kl_weight * kl_share * kl
        return {**terms, "kl": kl, "loss": loss}


def draw_code(mean: Tensor, log_variance: Tensor, normal: Tensor) -> Tensor:
    """Draw a code from the encoder's normal, (B, latent_dim) (Kingma & Welling 2014, eq. 4)."""
    return mean + torch.exp(0.5 * log_variance) * normal
