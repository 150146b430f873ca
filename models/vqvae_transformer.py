"""A transformer over the codes of a VQ-VAE: new brains, and how likely each place of a brain is.

Pinaya et al. 2022 (doi:10.1016/j.media.2022.102475) for anomalies; Tudosiu et al. 2022
(arXiv:2209.03177) for drawing brains.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.classes import one_hot
from foldnorm.models.code_transformer import CodeTransformer
from foldnorm.models.noise import StepNoise, generator_on, seed_of
from foldnorm.models.protocols import Phase
from foldnorm.models.vqvae import VQVAE

CERTAIN = 10.0  # logit of what stays as it is
REACH = 1  # places around one that is drawn anew, in which the decoder shows it


class VQVAETransformer(VQVAE):
    """Volume → codes → volume in a first stage of the training, codes place by place in a second.

    Half of the second stage's sequences read the grid row by row, which is how volumes are drawn;
    the others read it in an order of their own each, which is how places are judged: by what lies
    on all sides of them.

    Args:
        shape: sides of the volumes; taken from the cohort by ``foldnorm train``.
        n_classes: taken from the cohort's label scheme.
        width: of the transformer.
        depth: layers.
        heads: of the attention.
        raster_share: of the training sequences that are read row by row.
        n_orders: orders in which a volume is judged: row by row, and others drawn once.
        temperature: that log probabilities are divided by where volumes are drawn.
        top_p: only the likeliest codes are drawn, as few as have this probability together.
        redraw_above: nats by which a place is less likely than what the model expects there, from
            which it is drawn anew by `restore`.
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
        width: int = 96,
        depth: int = 3,
        heads: int = 4,
        raster_share: float = 0.5,
        n_orders: int = 4,
        temperature: float = 1.0,
        top_p: float = 0.95,
        redraw_above: float = 6.0,
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
        _check(raster_share, n_orders, temperature, top_p, autoencoder_share)
        books = self.codebooks
        self.transformer = CodeTransformer(
            self.grid, books.count, books.size, books.width, width, depth, heads, condition_size
        )
        self.raster_share, self.n_orders = raster_share, n_orders
        self.temperature, self.top_p = temperature, top_p
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
        shuffled = noise.uniform(prod(self.grid)).argsort(dim=1)
        by_row = noise.uniform() < self.raster_share
        order = torch.where(by_row[:, None], self._raster(len(volumes)), shuffled)
        tokens = self._by_place(volumes)
        found = self.transformer.log_probability(tokens, self._entries(), order, condition)
        entropy = -found.mean()
        return {"code_entropy": entropy, "loss": entropy / self.codebooks.count}

    def validation_loss(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Nats a voxel that it takes to tell a volume: its codes, and what they leave open; (B,).

        A bound of the negative log likelihood of the volume.
        """
        tokens, order = self._by_place(volumes), self._raster(len(volumes))
        found = self.transformer.log_probability(tokens, self._entries(), order, condition)
        return super().validation_loss(volumes, condition) - found.sum(1) / prod(self.shape)

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
        drawn = self._draw(tokens, self._raster(count), 0, uniform.to(device), condition)
        return self.to_output(self.decode_tokens(self._as_grid(drawn), condition))

    @torch.no_grad()
    def surprise(self, volumes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Say how much less likely each place is than the model expects, averaged over orders.

        Args:
            volumes: (B, *sides) uint8.
            condition: (B, condition_size).

        Returns:
            (B, *grid) float32, nats: −log p of what is there, minus the entropy of what could be.
        """
        tokens, entries = self._by_place(volumes), self._entries()
        orders = [order.expand(len(volumes), -1) for order in self._orders(volumes.device)]
        found = [self.transformer.surprise(tokens, entries, own, condition) for own in orders]
        return torch.stack(found).mean(dim=0).view(-1, *self.grid)

    @torch.no_grad()
    def restore(
        self,
        volumes: Tensor,
        condition: Tensor | None = None,
        feature_maps: Sequence[Tensor] | None = None,
        surprise: Tensor | None = None,
    ) -> Tensor:
        """(B, *sides) uint8 → (B, C, *sides) logits: unlikely places drawn anew, given the others.

        The same at each call. What is not drawn anew, and not beside it, stays as it is.

        Args:
            volumes: class numbers.
            condition: (B, condition_size).
            feature_maps: of the volumes, if they are known.
            surprise: of the volumes, if it is known.
        """
        del feature_maps  # the encoder has none
        tokens = self._by_place(volumes)
        if surprise is None:
            surprise = self.surprise(volumes, condition)
        anew = surprise > self.redraw_above
        as_it_is = CERTAIN * one_hot(volumes, self.n_classes)
        if not anew.any():
            return as_it_is
        generator = generator_on(volumes.device, seed_of("restore"))
        chance = torch.rand(tokens.shape[1:], generator=generator, device=generator.device)
        drawn = []
        for n, own in enumerate(anew.flatten(1)):
            order = own.long().argsort(stable=True)[None]  # what stays comes first, row by row
            told = None if condition is None else condition[n : n + 1]
            first = int((~own).sum())
            drawn.append(
                self._draw(tokens[n : n + 1], order, first, chance[None].to(order.device), told)
            )
        decoded = self.decode_tokens(self._as_grid(torch.cat(drawn)), condition).float()
        pool = F.max_pool3d if anew.ndim == 4 else F.max_pool2d
        shown = pool(anew.float().unsqueeze(1), 2 * REACH + 1, 1, REACH)
        shown = F.interpolate(shown, size=tuple(self.shape), mode="nearest") > 0
        return torch.where(shown, decoded, as_it_is)

    def _draw(
        self, tokens: Tensor, order: Tensor, first: int, uniform: Tensor, condition: Tensor | None
    ) -> Tensor:
        return self.transformer.draw(
            tokens,
            self._entries(),
            order,
            first,
            uniform,
            condition,
            temperature=self.temperature,
            top_p=self.top_p,
        )

    @torch.no_grad()
    def _by_place(self, volumes: Tensor) -> Tensor:
        """(B, *sides) uint8 → (B, places, codebooks) int64: which entries are at each place."""
        return self.tokens(volumes).flatten(2).transpose(1, 2)

    def _entries(self) -> Tensor:
        """Codes as the transformer is shown them, of about length 1: (codebooks, codes, n)."""
        entries = self.codebooks.entries
        return entries / entries.square().mean().sqrt().clamp(min=1e-6)

    def _orders(self, device: torch.device) -> list[Tensor]:
        """Orders in which volumes are judged, (1, places) each."""
        raster = self._raster(1)
        drawn = [
            torch.randperm(prod(self.grid), generator=torch.Generator().manual_seed(n))[None]
            for n in range(1, self.n_orders)
        ]
        return [raster, *(order.to(device) for order in drawn)]

    def _raster(self, count: int) -> Tensor:
        """Row by row, (count, places)."""
        places = torch.arange(prod(self.grid), device=self.codebooks.entries.device)
        return places.expand(count, -1)

    def _as_grid(self, tokens: Tensor) -> Tensor:
        """(B, places, codebooks) → (B, codebooks, *grid)."""
        return tokens.transpose(1, 2).unflatten(2, self.grid)


def _check(
    raster_share: float,
    n_orders: int,
    temperature: float,
    top_p: float,
    autoencoder_share: float,
) -> None:
    """Refuse arguments that mean nothing."""
    shares = {"raster_share": raster_share, "top_p": top_p, "autoencoder_share": autoencoder_share}
    for name, share in shares.items():
        if not 0 <= share <= 1 or (name == "top_p" and not share):
            raise ValueError(f"{name}: expected a share, got {share:g}")
    if n_orders < 1 or not temperature > 0:
        raise ValueError(
            "expected an order or more and a temperature above 0, got "
            f"{n_orders} and {temperature:g}"
        )
