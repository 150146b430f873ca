"""A trained model, and what it needs to be applied to brains."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foldnorm.models.classes import to_classes
from foldnorm.models.noise import generator_on
from foldnorm.models.precision import float32_of
from foldnorm.models.protocols import (
    Decodes,
    Encodes,
    Generates,
    HasFeatureMaps,
    Recognises,
    Restores,
    RestoresImages,
    Translates,
)
from foldnorm.pipeline.data.brains import BrainsLike, brains_of, check_cohort, cohorts_of
from foldnorm.pipeline.data.conditions import Conditions
from foldnorm.pipeline.runs.forward_pass import (
    AskedPrecision,
    ForwardPass,
    Precision,
    scoring_precision,
)
from foldnorm.pipeline.runs.predict import decoded, drawn, joined, recognise, translated
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, few_at_a_time, n_together
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError

MAX_DRAWN = 64  # volumes drawn together


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, and what can be done with it.

    Brains are given as a `Cohort`, a `CohortView`, one `Brain`, several, or an array: (I, J, K) or
    (N, I, J, K) uint8 class numbers, prepared as the training cohort was; of images, float32 from
    −1 to 1. What comes out has one entry a brain, in order, also where there is but one.

    Example:
        >>> codes = model.encode(cohort.select("test"))
        >>> len(codes) == len(cohort.select("test"))
        True
        >>> figure = fn.plot(model.reconstruct(cohort[3])[0])

    Attributes:
        model: in evaluation mode.
        device: where it is.
        conditions: columns that it is told.
        data: what the run records of its training cohort: ``preparation``, ``shape``,
            ``participants``; empty while it is trained.
        config: of its run, ``model`` and ``training``; likewise.
        precision: in which it computes codes, features, and what scores look at.
    """

    model: nn.Module
    device: torch.device
    conditions: Conditions = field(default_factory=Conditions)
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    precision: Precision = "32"
    _last: list[ForwardPass] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def encodes(self) -> Encodes:
        """The model as one that has a latent space.

        Raises:
            InputError: it has none.
        """
        if not isinstance(self.model, Encodes):
            raise InputError(f"{type(self.model).__name__} has no latent space")
        return self.model

    @property
    def decodes(self) -> Decodes:
        """The model as one that makes volumes out of codes.

        Raises:
            InputError: it makes none.
        """
        if not isinstance(self.model, Decodes):
            raise InputError(f"{type(self.model).__name__} makes no volumes out of codes")
        return self.model

    @property
    def recognises(self) -> Recognises:
        """The model as one that names sulci.

        Raises:
            InputError: it names none.
        """
        if not isinstance(self.model, Recognises):
            raise InputError(f"{type(self.model).__name__} recognises no sulci")
        return self.model

    @property
    def translates(self) -> Translates:
        """The model as one that makes one volume of a pair out of the other.

        Raises:
            InputError: it does not.
        """
        if not isinstance(self.model, Translates):
            raise InputError(f"{type(self.model).__name__} does not translate")
        return self.model

    @property
    def samples(self) -> Generates:
        """The model as one that draws new volumes.

        Raises:
            InputError: it draws none.
        """
        if not isinstance(self.model, Generates):
            raise InputError(f"{type(self.model).__name__} does not draw new volumes")
        return self.model

    @property
    def patch(self) -> Sequence[int] | None:
        """Sides of the patches that it was trained on; None for whole volumes."""
        return self.config.get("training", {}).get("patch")

    @cached_property
    def preparation(self) -> Preparation:
        """Preparation of each volume of the training cohort."""
        return Preparation.from_dict(self.data["preparation"])

    def check_cohort(self, cohort: Cohort) -> None:
        """Refuse a cohort that was not prepared as the training cohort was."""
        check_cohort(self.data, cohort)

    def for_scoring(self, asked: AskedPrecision) -> "TrainedModel":
        """Return this model, computing in the precision of `scoring_precision`."""
        trained_in = self.config.get("training", {}).get("precision", "32")
        return replace(self, precision=scoring_precision(asked, trained_in, self.device))

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Context of every use of the model: no gradients, and float32 as its training has it."""
        trained_in = self.config.get("training", {}).get("precision")
        as_trained = float32_of(trained_in, self.device) if trained_in else nullcontext()
        with torch.no_grad(), as_trained:
            yield

    def generator(self, seed: int) -> torch.Generator:
        """Make a generator for `Generates.sample`, where the training drew its noise."""
        source = self.config.get("training", {}).get("noise", "device")
        return generator_on(self.device, seed, source)

    def condition(self, rows: Sequence[Mapping[str, str]]) -> Tensor | None:
        """Encode conditions of brains, (B, size) on the device; None for an unconditioned model."""
        if not self.conditions.size:
            return None
        return torch.from_numpy(self.conditions.encode(rows)).to(self.device)

    def batches(self, brains: Iterable[Brain]) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield a few volumes at a time, (B, I, J, K) uint8 on the device, and their conditions."""
        for few in few_at_a_time(brains):
            volumes = torch.from_numpy(np.stack([brain.volume for brain in few])).to(self.device)
            yield volumes, self.condition([brain.row for brain in few])

    def passes(self, brains: Iterable[Brain]) -> Iterator[ForwardPass]:
        """Yield forward passes of the model over brains, a few brains at a time.

        Asking for the last brains again yields the same pass, so that nothing is computed twice.
        """
        for volumes, condition in self.batches(brains):
            if not any(last.is_of(volumes, condition) for last in self._last):
                self._last.clear()  # before another is made: two would need twice the memory
                last = ForwardPass(
                    self.model, volumes, condition, self.precision, self.computing, self.patch
                )
                self._last.append(last)
            yield self._last[0]

    def encode(self, brains: BrainsLike) -> NDArray[np.float32]:
        """Codes of brains, (N, latent_dim) float32; never more than a few volumes in memory.

        Raises:
            InputError: the model has no latent space, or the brains were prepared otherwise.
        """
        model = self.encodes
        codes = [own.codes.cpu().numpy() for own in self.passes(self._checked(brains))]
        if not codes:
            return np.empty((0, model.latent_dim), dtype=np.float32)
        return np.concatenate(codes)

    def decode(
        self, codes: NDArray[np.floating], rows: Sequence[Mapping[str, str]] = ()
    ) -> NDArray[Any]:
        """Volumes of codes, (N, I, J, K) uint8 class numbers; of images, float32 from −1 to 1.

        Args:
            codes: (N, latent_dim), or one, (latent_dim,).
            rows: of ``participants.tsv``, what a conditioned model is told of each; none: nothing.

        Raises:
            InputError: the model makes no volumes out of codes, or codes of another size.
        """
        model, given = self.decodes, np.atleast_2d(np.asarray(codes, dtype=np.float32))
        if given.shape[1:] != (model.latent_dim,):
            raise InputError(f"expected codes of {model.latent_dim} numbers, got {given.shape}")
        told = self.condition(rows or [self._unconditioned] * len(given))
        few = n_together(prod(self.data.get("shape", ())))
        with self.computing():
            made = [
                decoded(model, part, None if told is None else told[n : n + few])
                for n in range(0, len(given), few)
                for part in [torch.from_numpy(given[n : n + few]).to(self.device)]
            ]
        return torch.cat(made).cpu().numpy()

    def reconstruct(self, brains: BrainsLike) -> NDArray[Any]:
        """Encode and decode brains, shape and type as they are.

        Raises:
            InputError: the model does not reconstruct, or the brains were prepared otherwise.
        """
        if isinstance(self.model, RestoresImages):
            return self.restore(brains)
        model = self.decodes
        with self.computing():
            made = [
                decoded(model, model.encode(volumes, condition), condition)
                for volumes, condition in self.batches(self._checked(brains))
            ]
        return joined(made)

    def restore(self, brains: BrainsLike) -> NDArray[Any]:
        """Restore brains to what is healthy, or repair images; shape and type as they are.

        Raises:
            InputError: the model restores nothing, or the brains were prepared otherwise.
        """
        if not isinstance(self.model, (Restores, RestoresImages)):
            raise InputError(f"{type(self.model).__name__} restores nothing")
        given = self._checked(brains)
        if isinstance(self.model, Restores):
            return joined([to_classes(own.restored) for own in self.passes(given)])
        with self.computing():
            made = [self.model.repair(volumes).float() for volumes, _ in self.batches(given)]
        return joined(made)

    def recognise(self, brains: BrainsLike) -> NDArray[np.uint8]:
        """Sulci of brains, (N, I, J, K) uint8: number n is ``model.sulci[n - 1]``, 0 any other.

        Raises:
            InputError: the model names no sulci, or the brains were prepared otherwise.
        """
        model, scheme = self.recognises, self.preparation.scheme
        batches = self.batches(self._checked(brains))
        with self.computing():
            return joined([recognise(model, volumes, scheme) for volumes, _ in batches])

    def translate(self, brains: BrainsLike) -> NDArray[np.uint8]:
        """Predict the other volume of each pair, (N, I, J, K) uint8 class numbers.

        Of a cohort, a model in reverse starts from the second volumes. A volume with a longer side
        than the training volumes is translated in windows.

        Raises:
            InputError: the model does not translate, or the brains were prepared otherwise.
        """
        model = self.translates
        if isinstance(brains, Cohort) and model.reverse:
            self.check_cohort(brains)
            if brains.pairs is None:
                raise InputError(f"the cohort has no pairs to translate from: {brains.folder}")
            return np.stack([self.translate_volume(np.array(v)) for v in brains.pairs])
        given = self._checked(brains, any_shape=True)
        return np.stack([self.translate_volume(brain.volume) for brain in given])

    def translate_volume(self, volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(I, J, K) uint8 class numbers in, those of the other volume out.

        A volume with a longer side than the training volumes is translated in windows of their
        size that overlap by half; where they do, logits are averaged, those of a window's middle
        weighing more. So is every volume of other sides, where the network does not take any.
        """
        model, preparation = self.translates, self.preparation
        source = preparation.for_second_volume().scheme if model.reverse else preparation.scheme
        batch = torch.from_numpy(volume)[None].to(self.device)
        with self.computing():
            made = translated(model, batch, self.data["shape"], source.fill)
        return made[0].cpu().numpy()

    def sample(
        self, number: int = 1, *, seed: int = 0, given: Mapping[str, str] | None = None
    ) -> NDArray[Any]:
        """Draw new volumes, (number, I, J, K) uint8 class numbers; images, float32 from −1 to 1.

        Args:
            number: how many.
            seed: of everything drawn.
            given: columns that a conditioned model is told; others are drawn as in training.

        Raises:
            InputError: the model draws none, or is told what it does not take.
        """
        return np.stack(list(self.draw(number, seed, given or {})))

    def draw(self, number: int, seed: int, given: Mapping[str, str]) -> Iterator[NDArray[Any]]:
        """Volumes of `sample` one at a time; never more than `MAX_DRAWN` in memory."""
        rng, generator = np.random.default_rng(seed), self.generator(seed)
        model = self.samples
        for first in range(0, number, MAX_DRAWN):
            count = min(MAX_DRAWN, number - first)
            told = self.conditions.draw(count, rng, given)
            condition = torch.from_numpy(told) if self.conditions.size else None
            with self.computing():
                made = drawn(model, count, generator, condition, lambda: self.preparation)
            yield from made

    def features(self, brains: Iterable[Brain]) -> list[NDArray[np.float32]]:
        """Compute features of brains at each level of the network, (N, d) float32 a level, inwards.

        See `ForwardPass.features`. Empty for a model without feature maps.
        """
        if not isinstance(self.model, HasFeatureMaps):
            return []
        found = [[level.cpu().numpy() for level in own.features] for own in self.passes(brains)]
        return [np.concatenate(level) for level in zip(*found, strict=True)]

    @property
    def _unconditioned(self) -> dict[str, str]:
        """Row of a brain of which nothing is known."""
        return dict.fromkeys((column.name for column in self.conditions.columns), "")

    def _checked(self, given: BrainsLike, *, any_shape: bool = False) -> Iterable[Brain]:
        """Brains one by one; refuses what the model was not trained to see."""
        shape = self.data.get("shape")
        for cohort in cohorts_of(given):
            if shape is not None:
                self.check_cohort(cohort)
        return brains_of(given, shape, self._unconditioned, any_shape=any_shape)
