"""A transformer over the codes of a VQ-VAE: new brains, and what a brain should hold anywhere.

Pinaya et al. 2022 (doi:10.1016/j.media.2022.102475) for anomalies; Tudosiu et al. 2022
(arXiv:2209.03177) for drawing brains.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.block_networks import BlockEncoder
from foldnorm.models.classes import one_hot
from foldnorm.models.code_transformer import CodeTransformer
from foldnorm.models.grids import GridWindows, tiles
from foldnorm.models.noise import StepNoise, generator_on, seed_of
from foldnorm.models.protocols import Phase
from foldnorm.models.vqvae import VQVAE

CERTAIN = 10.0  # logit of what stays as it is
REACH = 1  # places around one that is drawn anew, in which the decoder shows it


class VQVAETransformer(VQVAE):
    """Volume → codes → volume in a first stage of the training, codes place by place in a second.

    Some of the second stage's sequences read the grid row by row, which is how volumes are drawn;
    others read all but a region first, which is how regions are judged and drawn anew: by what lies
    on all sides of them; and a few in an order of their own each.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        width: of the transformer.
        depth: layers.
        heads: of the attention.
        window: sides, in places, of the part of the grid that a sequence is of: of grids of so many
            places that no sequence can be of all. Windows lie anywhere in training; one after the
            other, overlapping by half, they draw and judge the whole. None: the grid is one.
        raster_share: of the training sequences that are read as volumes are drawn: row by row, in
            windows after what earlier ones have drawn.
        region_share: of those that read all but a region first. Half of them are then asked about
            each place of it, told nothing of the others; half read it on.
        region_sides: of the region, in places, the least and the most.
        box_sides: of the boxes of places that `expected` asks about, told all around; averaged over
            them.
        n_tilings: of the grid by boxes of each side, shifted, likewise.
        temperature: that log probabilities are divided by where volumes are drawn.
        top_p: only the likeliest codes are drawn, as few as have this probability together.
        sheet_margin: nats by which another class may be likelier than the highest one (sulcus)
            where that is drawn; its sheets are mended and thinned afterwards.
        redraw_above: share of the voxels around a place that are expected to be of the highest
            class and are not, from which `restore` draws that place anew.
        autoencoder_share: of the training that the first stage takes; 0 for one that starts from
            the weights of a trained `VQVAE`.
        training_steps: taken from ``training.steps``.
        condition_size: numbers that conditions amount to; taken from the cohort.
        others: of the first stage, see `VQVAE`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        width: int = 192,
        depth: int = 3,
        heads: int = 4,
        window: Sequence[int] | None = None,
        raster_share: float = 0.4,
        region_share: float = 0.5,
        region_sides: Sequence[float] = (2.0, 6.0),
        box_sides: Sequence[int] = (5, 6, 8),
        n_tilings: int = 2,
        temperature: float = 1.0,
        top_p: float = 0.99,
        sheet_margin: float = 2.0,
        redraw_above: float = 0.06,
        autoencoder_share: float = 0.2,
        training_steps: int = 1,
        condition_size: int = 0,
        **others: Any,
    ) -> None:
        super().__init__(
            shape,
            n_classes,
            training_steps=round(autoencoder_share * training_steps),
            condition_size=condition_size,
            **others,
        )
        _check_shares(
            raster_share=raster_share,
            region_share=region_share,
            both_shares=raster_share + region_share,
            top_p=top_p,
            autoencoder_share=autoencoder_share,
        )
        if not top_p or not temperature > 0:
            raise ValueError(
                f"expected a top_p and a temperature above 0, got {top_p:g} and {temperature:g}"
            )
        if not box_sides or not 1 <= n_tilings <= min(box_sides):
            raise ValueError(
                "expected one of box_sides or more, none smaller than n_tilings, and this 1 or "
                f"more, got {list(box_sides)} and {n_tilings}"
            )
        if not 1 <= region_sides[0] <= region_sides[1]:
            raise ValueError(
                f"region_sides: expected two sides of 1 or more, the smaller first, got "
                f"{list(region_sides)}"
            )
        books = self.codebooks
        self.transformer = CodeTransformer(
            self.grid, books.count, books.size, books.width, width, depth, heads, condition_size
        )
        self.windows = GridWindows(self.grid, window)
        self.box_sides, self.n_tilings = tuple(box_sides), n_tilings
        self.raster_share = raster_share
        self.region_share, self.region_sides = region_share, tuple(region_sides)
        self.temperature, self.top_p = temperature, top_p
        self.sheet_margin = sheet_margin
        self.redraw_above = redraw_above
        self.autoencoder_steps = round(autoencoder_share * training_steps)
        self.phases: Mapping[str, Phase] = {
            **self.phases,
            "codes": Phase(("transformer",)),
        }

    @property
    def first_stage(self) -> type[nn.Module]:
        """Class whose arguments and weights are among those of this one."""
        return VQVAE

    def first_stage_config(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the configuration itself, which has all arguments of a `VQVAE`."""
        return model

    def load_first_stage(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a trained `VQVAE`."""
        self.load_state_dict(state, strict=False)

    def phase_order(self, step: int) -> Sequence[str]:
        """Return the autoencoder's phase in the first stage, the transformer's afterwards."""
        return ("reconstruction",) if step < self.autoencoder_steps else ("codes",)

    def loss(
        self, phase: str, volumes: Tensor, noise: StepNoise, condition: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy of the reconstruction, or of the codes, nats a place; uint8 in."""
        if phase == "reconstruction":
            return super().loss(phase, volumes, noise, condition)
        order, told = self._orders_to_learn(noise)
        tokens = self._by_place(volumes)
        found = self.transformer.log_probability(tokens, self._entries(), order, condition, told)
        entropy = -found.sum() / order.numel()
        return {"code_entropy": entropy, "loss": entropy / self.codebooks.count}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Nats a voxel that it takes to tell a volume: its codes, and what they leave open; (B,).

        A bound of the negative log likelihood of the volume.
        """
        tokens, entries = self._by_place(volumes), self._entries()
        nats = super().validation_loss(volumes, condition)
        for order, first in self.windows.orders(self._every_place()):
            orders = order.expand(len(volumes), -1)
            found = self.transformer.log_probability(tokens, entries, orders, condition)
            nats = nats - found[:, order[first:]].sum(1) / prod(self.shape)
        return nats

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator, condition: Tensor | None = None
    ) -> Tensor:
        """Draw new volumes, (count, *sides) uint8, row by row.

        Each has random numbers of its own, so that it is the same however many are drawn with it.
        """
        where, device = generator.device, self.codebooks.entries.device
        seeds = torch.randint(2**62, (count,), generator=generator, device=where).tolist()
        own = [torch.Generator(where).manual_seed(seed) for seed in seeds]
        sides = (prod(self.grid), self.codebooks.count)
        uniform = torch.stack([torch.rand(sides, generator=g, device=where) for g in own])
        tokens = torch.zeros((count, *sides), dtype=torch.long, device=device)
        condition = None if condition is None else condition.to(device)
        drawn = self._draw(tokens, self._every_place(), uniform.to(device), condition)
        return self.to_drawn(self.decode_tokens(self._as_grid(drawn), condition))

    @torch.no_grad()
    def expected(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Say what a healthy brain holds at each voxel, given this one around a box about it.

        Boxes of ``box_sides`` places cover the grid. Those that do not touch are asked about
        together, told all places of the others: half of the boxes along each axis. Likelihoods of
        single places, told their neighbours, do not miss a fold: where all around is empty, that a
        place is empty goes well with it.

        Args:
            volumes: (B, *sides) uint8.
            condition: (B, condition_size).

        Returns:
            (B, C, *sides) float32, the probability of each class.
        """
        tokens, entries = self._by_place(volumes), self._entries()
        meanings = self.meanings.probabilities().flatten(2)
        chance = self._chance(volumes.device)
        places, books = tokens.shape[1:]
        found = meanings.new_zeros(len(volumes), places, books, meanings.shape[2])
        times = meanings.new_zeros(places, 1, 1)
        tilings = [
            tiles(self.grid, side, n * side // self.n_tilings)
            for side in self.box_sides
            for n in range(self.n_tilings)
        ]
        groups = [group.to(volumes.device) for tiling in tilings for group in tiling]
        for (window, may_be_asked), asked in product(self.windows.every(), groups):
            known, own = window[~asked[window]], window[asked[window] & may_be_asked]
            if len(own):  # of a box, what lies at the end of the window is told neither
                times[own] += 1
                found[:, own] += self.transformer.expected(
                    tokens,
                    entries,
                    meanings,
                    torch.cat([known, own]),
                    len(known),
                    chance,
                    condition,
                )
        cubes = (found / times).movedim(1, -1).unflatten(-1, self.grid)
        assert isinstance(self.encoder, BlockEncoder)
        return self.encoder.volume(cubes)

    @torch.no_grad()
    def restore(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
        expected: Tensor | None = None,
    ) -> Tensor:
        """(B, *sides) uint8 → (B, C, *sides) logits: what misses a fold drawn anew, given the rest.

        The same at each call. What is not drawn anew, and not beside it, stays as it is.

        Args:
            volumes: class numbers.
            condition: (B, condition_size).
            feature_maps: of the volumes, if they are known.
            expected: of the volumes, if it is known.
        """
        del feature_maps  # the encoder has none
        tokens = self._by_place(volumes)
        if expected is None:
            expected = self.expected(volumes, condition)
        anew = self._misses_a_fold(volumes, expected)
        as_it_is = CERTAIN * one_hot(volumes, self.n_classes)
        if not anew.any():
            return as_it_is
        chance, drawn = self._chance(volumes.device), []
        for n, own in enumerate(anew.flatten(1)):
            told = None if condition is None else condition[n : n + 1]
            drawn.append(self._draw(tokens[n : n + 1], own, chance[None], told))
        decoded = self.decode_tokens(self._as_grid(torch.cat(drawn)), condition).float()
        shown = self._pool(anew.float().unsqueeze(1), 2 * REACH + 1, 1, REACH)
        shown = F.interpolate(shown, size=tuple(self.shape), mode="nearest") > 0
        return torch.where(shown, decoded, as_it_is)

    def _misses_a_fold(self, volumes: Tensor, expected: Tensor) -> Tensor:
        """Find the places around which so much of the highest class is missing: (B, *grid) bool."""
        dims = len(self.grid)
        fewer = expected[:, -1:] - (volumes == self.n_classes - 1).unsqueeze(1).float()
        average = (F.avg_pool2d, F.avg_pool3d)[dims - 2]
        block = self.shape[0] // self.grid[0]
        share = average(fewer, block)
        near = average(F.pad(share, [REACH] * 2 * dims), 2 * REACH + 1, 1)
        return self._pool((near > self.redraw_above).float(), 2 * REACH + 1, 1, REACH)[:, 0] > 0

    @property
    def _pool(self) -> Any:
        return F.max_pool3d if len(self.grid) == 3 else F.max_pool2d

    def _chance(self, device: torch.device) -> Tensor:
        """Random numbers for a draw that is the same at each call, (places, codebooks)."""
        generator = generator_on(device, seed_of("restore"))
        sides = (prod(self.grid), self.codebooks.count)
        return torch.rand(sides, generator=generator, device=generator.device).to(device)

    def _draw(
        self, tokens: Tensor, asked: Tensor, uniform: Tensor, condition: Tensor | None
    ) -> Tensor:
        """Draw the codes of the places that are asked, (places,), given those of the others."""
        for order, first in self.windows.orders(asked):
            tokens = self.transformer.draw(
                tokens,
                self._entries(),
                order.expand(len(tokens), -1),
                first,
                uniform,
                condition,
                temperature=self.temperature,
                top_p=self.top_p,
            )
        return tokens

    @torch.no_grad()
    def _by_place(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, places, codebooks) int64: which entries are at each place."""
        return self.tokens(volumes).flatten(2).transpose(1, 2)

    def _entries(self) -> Tensor:
        """Codes as the transformer is shown them, of about length 1: (codebooks, codes, n)."""
        entries = self.codebooks.entries
        return entries / entries.square().mean().sqrt().clamp(min=1e-6)

    def _orders_to_learn(self, noise: StepNoise) -> tuple[Tensor, Tensor]:
        """Draw the order of each sequence's places, (B, steps), and how many it is told, (B,)."""
        windows = self.windows
        count, kind = prod(windows.sides), noise.uniform()
        shuffled = noise.uniform(count).argsort(dim=1)
        has_region = kind >= 1 - self.region_share
        inside = self._drawn_regions(noise) & has_region[:, None]
        rows = torch.arange(count, device=noise.device).expand_as(shuffled)
        region_last = torch.where(inside, count + shuffled, rows).argsort(dim=1)
        is_drawn = kind < self.raster_share
        order = torch.where((is_drawn | has_region)[:, None], region_last, shuffled)
        at_once = has_region & (noise.uniform() < 0.5)
        told = torch.where(at_once, (~inside).sum(dim=1), count)
        if not windows.covers:
            order = windows.first[order] + windows.drawn(noise.uniform(len(windows.sides)))
            way = (noise.uniform() * len(windows.as_drawn)).long()
            order = torch.where(is_drawn[:, None], windows.as_drawn[way], order)
        return order, told

    def _drawn_regions(self, noise: StepNoise) -> Tensor:
        """Draw a box of places of each window, cut where it ends: (B, steps) bool."""
        low, high = self.region_sides
        sides = self.windows.sides
        within = torch.ones(1, *sides, dtype=torch.bool, device=noise.device)
        for axis, side in enumerate(sides):
            middle, extent = noise.uniform() * side, low + noise.uniform() * (high - low)
            place = torch.arange(side, device=noise.device) + 0.5
            own = (place - middle[:, None]).abs() <= extent[:, None] / 2
            line = [side if n == axis else 1 for n in range(len(sides))]
            within = within & own.view(-1, *line)
        return within.flatten(1)

    def _every_place(self) -> Tensor:
        """Mark all places, (places,)."""
        device = self.codebooks.entries.device
        return torch.ones(prod(self.grid), dtype=torch.bool, device=device)

    def _as_grid(self, tokens: Tensor) -> Tensor:
        """(B, places, codebooks) → (B, codebooks, *grid)."""
        return tokens.transpose(1, 2).unflatten(2, self.grid)


def _check_shares(**shares: float) -> None:
    """Refuse shares that are none."""
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected a share, got {share:g}")
