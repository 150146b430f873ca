"""Protocols that models implement, so that one training loop trains all of them.

A model is an ``nn.Module`` whose attributes named in its phases are its networks. It says which
networks each optimiser step trains, the order of the steps, and one loss for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from foldnorm.models.noise import StepNoise

# What a batch holds: the cohort's volumes; true pairs, each of one participant's hemisphere;
# volumes and second volumes that were drawn apart, so that nothing can be learned from pairs;
# volumes from which something was erased, beside what they were; volumes and the sulcus that
# each of their voxels belongs to. Or images (and label volumes, where a model takes both), as they
# are or to be told apart by a column; images under noise, beside what they were; and damaged
# images, the mask of the damage as 0 and 1, and what they were; of one that came damaged, the image
# itself twice, and between them −1, for nobody knows.
InputKind = Literal[
    "volumes", "pairs", "unpaired", "edits", "sulci", "images", "classified", "noisy", "damaged"
]
# What is done to training volumes. Erased, and never the hull: whole folds; balls; slabs that lie
# as the sheet does there; noise. Added: copies of folds, moved; sheets.
EditKind = Literal["folds", "balls", "slabs", "noise", "copies", "sheets"]
ADDING: frozenset[EditKind] = frozenset({"copies", "sheets"})
OF_FOLDS: frozenset[EditKind] = frozenset({"folds", "copies"})  # need fold labels


# What is done to images: strokes, spots with a rough border, Gaussian noise.
DamageKind = Literal["straight", "broken", "curved", "blobs", "noise"]


@dataclass(frozen=True)
class Phase:
    """One kind of optimiser step.

    Attributes:
        networks: attributes of the model that it trains; all others are frozen meanwhile.
        full_float32: its backward pass is computed without TF32.
        penalises_gradient: its loss holds gradients of its networks, which the backward pass
            differentiates once more.
    """

    networks: tuple[str, ...]
    full_float32: bool = False
    penalises_gradient: bool = False


@runtime_checkable
class Trainable(Protocol):
    """A model that the training loop can train."""

    input_kind: InputKind
    phases: Mapping[str, Phase]

    def phase_order(self, step: int) -> Sequence[str]:
        """Names of the phases of a step, in order; each gets a batch of its own.

        Every step has the same number of phases.
        """

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Named terms of one phase, and under ``"loss"`` the scalar to go down.

        ``volumes`` is (B, I, J, K) uint8 class numbers, or (B, 2, I, J, K) with the second
        volumes; of images, (B, *sides) float32 from −1 to 1. ``condition`` is (B, condition_size)
        float32, or None for a model that takes none. Each term is a mean over the batch, so that
        the mean over processes is that of the whole batch.
        """

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Loss of each volume or pair of a batch, (B,) float32, without noise."""


def networks_of(model: Trainable) -> list[str]:
    """List the names of all networks that some phase trains."""
    return sorted({name for phase in model.phases.values() for name in phase.networks})


@runtime_checkable
class HasPostStep(Protocol):
    """A model that constrains its weights after each optimiser step."""

    def after_step(self, phase: str) -> None:
        """Constrain the weights, after the optimiser step of a phase."""


@runtime_checkable
class HasFirstStage(Protocol):
    """A model that may start from the weights of another, which is its first stage."""

    @property
    def first_stage(self) -> type:
        """Class of that model."""

    def first_stage_config(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a configuration of this model, resolved, says of its first stage.

        ``class_path`` and ``init_args``, perhaps with arguments of the second stage among them.
        """

    def load_first_stage(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of the first stage."""


@runtime_checkable
class Conditioned(Protocol):
    """A model that may be conditioned on columns of each volume, such as hemisphere, age or sex.

    Attributes:
        condition: columns of ``participants.tsv``; none if it is not conditioned.
    """

    condition: Sequence[str]


@runtime_checkable
class Encodes(Protocol):
    """A model with a latent space."""

    latent_dim: int

    def encode(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, latent_dim) float32 codes."""


@runtime_checkable
class HasFeatureMaps(Protocol):
    """A model that gives the maps of its network's levels."""

    def feature_maps(self, volumes: Tensor, condition: Tensor | None = None) -> Sequence[Tensor]:
        """(B, I, J, K) uint8 class numbers → a map (B, C, *sides) of each level, inwards.

        `encode` and `restore` of such a model take them as ``feature_maps`` and go on from there,
        so that who wants both pays for one pass.
        """


@runtime_checkable
class EncodesPlaces(Encodes, Protocol):
    """A model whose code may be a map in which healthy brains lie near 0 at every place.

    Attributes:
        healthy_grid: sides of that map, each of which divides the volume's; the code is
            (channels, *healthy_grid), flattened. Empty if it is none.
    """

    healthy_grid: tuple[int, ...]


@runtime_checkable
class Expects(Protocol):
    """A model that says what a healthy brain holds at each voxel, given what lies around it."""

    def expected(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) float32 probabilities of classes."""


@runtime_checkable
class Decodes(Encodes, Protocol):
    """A model that decodes codes to volumes."""

    def decode(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, latent_dim) → (B, C, I, J, K) class logits."""


@runtime_checkable
class Translates(Protocol):
    """A model that translates one volume of a pair into the other.

    Attributes:
        reverse: whether it starts from the second volume.
        any_sides: whether volumes may have others than those of the training cohort; if not, it is
            shown windows of those.
    """

    reverse: bool
    any_sides: bool

    def translate(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) class logits of the other volume."""


@runtime_checkable
class Generates(Protocol):
    """A model that draws new volumes."""

    def sample(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw new volumes, (count, I, J, K) uint8 class numbers.

        ``condition`` is (count, condition_size), for a model that takes one.
        """


@runtime_checkable
class DrawsThickSheets(Generates, Protocol):
    """A model that may draw sheets thicker than they are, to be mended and thinned (`mending`).

    Attributes:
        sheet_margin: voxels, or logits, by which another class may be likelier than the highest one
            where this is drawn; 0: sheets are as they should be.
    """

    sheet_margin: float


@runtime_checkable
class Inpaints(Protocol):
    """A model that draws what is missing of images, given the rest."""

    def inpaint(
        self,
        images: Tensor,
        missing: Tensor,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> Tensor:
        """(B, *sides) images, and bool where something is missing → whole images, likewise."""


@runtime_checkable
class Classifies(Protocol):
    """A classifier of images or volumes.

    Attributes:
        target: column of ``participants.tsv`` that holds the classes.
    """

    target: str

    def classify(self, volumes: Tensor) -> Tensor:
        """(B, *sides) as in a batch → (B, n) logits of the levels of the column."""


@runtime_checkable
class RestoresImages(Protocol):
    """A model that restores degraded images, or brings back images from their codes."""

    def repair(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1, likewise out."""


@runtime_checkable
class Denoises(RestoresImages, Protocol):
    """A model that may remove noise from images.

    Attributes:
        noise_factor: standard deviation of the noise that it learned from, as a share of the range
            of intensities; 0 for none.
    """

    noise_factor: float


@runtime_checkable
class LearnsFromDamage(RestoresImages, Protocol):
    """A model that learns from images that a program damaged.

    Attributes:
        damage: kinds of damage.
        max_damage: pieces of damage in a training image, at most.
        widths: of strokes, smallest and largest, pixels.
    """

    damage: Sequence[DamageKind]
    max_damage: int
    widths: Sequence[float]


@runtime_checkable
class LearnsFromTrueDamage(LearnsFromDamage, Protocol):
    """A model that may learn from images that came damaged, too, without the undamaged ones.

    Attributes:
        damaged_column: ``COLUMN=VALUE`` of ``participants.tsv`` that says which; empty for none.
    """

    damaged_column: str


@runtime_checkable
class FindsDamage(LearnsFromDamage, Protocol):
    """A model that finds damage in images."""

    def find_damage(self, images: Tensor) -> Tensor:
        """(B, *sides) float32 from −1 to 1 → probability of damage, (B, *sides)."""


@runtime_checkable
class Diffuses(Generates, Protocol):
    """A diffusion model: it draws volumes by removing noise step by step.

    Attributes:
        samplers: ways from noise to an image that it knows.
        sampler: the one that it takes; ``ddpm`` takes every step, others few of them.
        diffusion_steps: number of steps from image to noise.
        sampling_steps: number of steps that those others take back.
        condition_dropout: share of the training volumes of which it was told nothing.
        guidance: how far a drawn volume follows its condition; 1 as the network does.
    """

    samplers: Sequence[str]
    sampler: str
    diffusion_steps: int
    sampling_steps: int
    condition_dropout: float
    guidance: float

    @property
    def num_inference_steps(self) -> int:
        """Number of steps that the sampler takes from noise to an image."""

    def diffuse(
        self,
        volumes: Tensor,
        share: float,
        generator: torch.Generator,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Add the noise of a share of the steps, from 0 to 1, to (B, *sides); likewise out."""

    def sample_trajectory(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield (count, *sides) after each step, from noise to what `sample` gives."""


@runtime_checkable
class LearnsFromEdits(Protocol):
    """A model that learns from edited healthy brains: structure was erased or added.

    Attributes:
        edits: kinds of edits.
        max_edits: number of edits of a training volume, at most.
        radii: smallest and largest radius of edits that have one, mm.
    """

    edits: Sequence[EditKind]
    max_edits: int
    radii: Sequence[float]


@runtime_checkable
class Restores(Protocol):
    """A model that restores brains to what a healthy brain would hold."""

    def restore(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, C, I, J, K) logits, of a healthy brain."""


@runtime_checkable
class TakesPatches(Protocol):
    """A model that may be given patches of volumes.

    Its ``condition`` is where they lie: the coordinates in the cohort's box, from −1 to 1 along
    each axis, of a patch's first voxel and of its last, (B, 6) float32. Without it volumes fill the
    box.

    Attributes:
        takes_patches: true if it takes them.
    """

    takes_patches: bool


@runtime_checkable
class Recognises(Protocol):
    """A model that labels voxels with the sulcus that they belong to.

    Attributes:
        sulci: names, of classes 1 to n; class 0 is any other, and what is no sulcus.
        substitutes: share of the training volumes in which other folds take the place of one.
    """

    sulci: Sequence[str]
    substitutes: float

    def recognise(self, volumes: Tensor) -> Tensor:
        """(B, I, J, K) uint8 class numbers → (B, n + 1, I, J, K) logits of the sulci."""
