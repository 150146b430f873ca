"""Probability of a grid of codes, place after place in any order of the places."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foldnorm.models.causal_transformer import CausalTransformer, axial_waves
from foldnorm.models.volume_networks import ConditionMap


class CodeTransformer(nn.Module):
    """p(codes of a place | codes of the places before it), for any order of the places.

    A step of the sequence holds the codes of the place before, where that lies, and where the next
    one lies (Pannatier et al. 2024): so one network knows every order, and what is to be drawn anew
    comes last, after all that stays. It is also given which of the neighbours of the next place are
    known, and their codes, for of those most follows. Several codes of one place come one after the
    other (Lee et al. 2022), from one step of the sequence.

    Tokens are numbers of codes, (B, places, codebooks) int64, entries the codes themselves,
    (codebooks, codes, channels); an order is (B, steps) int64, the place of each step: of all
    places, or of some; of the others nothing is known then.

    Args:
        grid: sides of the grid, 2-D or 3-D.
        n_codebooks: codes of a place.
        n_codes: entries of each codebook.
        channels: of a code.
        width: of a step.
        depth: layers.
        heads: of the attention.
        condition_size: numbers of the condition of each volume; 0 if there is none.

    Source:
        Pannatier et al. 2024, σ-GPT (arXiv:2404.09562); Lee et al. 2022, RQ-Transformer
        (arXiv:2203.01941).
    """

    neighbours: Tensor

    def __init__(
        self,
        grid: Sequence[int],
        n_codebooks: int,
        n_codes: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        condition_size: int = 0,
    ) -> None:
        super().__init__()
        self.places = prod(grid)
        whole = n_codebooks * channels
        self.register_buffer("neighbours", neighbour_table(grid), persistent=False)
        self.begin = nn.Parameter(torch.zeros(width))
        self.here = nn.Parameter(axial_waves(tuple(grid), width))
        self.there = nn.Parameter(axial_waves(tuple(grid), width))
        self.from_code = nn.Linear(whole, width)
        self.from_neighbours = nn.Sequential(
            nn.Linear(self.neighbours.shape[1] * (whole + 1), 2 * width), nn.GELU()
        )
        self.to_step = nn.Linear(2 * width, width)
        of_place = [self.places, width]  # what follows from a condition differs from place to place
        self.condition = ConditionMap(condition_size, of_place) if condition_size else None
        self.transformer = CausalTransformer(width, depth, heads)
        self.to_logits = nn.ModuleList(
            _Head(n * channels, width, n_codes) for n in range(n_codebooks)
        )

    def log_probability(
        self,
        tokens: Tensor,
        entries: Tensor,
        order: Tensor,
        condition: Tensor | None = None,
        told: Tensor | None = None,
    ) -> Tensor:
        """Compute the log probability of each place's codes, (B, places) nats, by place.

        It is 0 of places that are not in the order.

        Args:
            tokens: of all places.
            entries: of the codebooks.
            order: of the places.
            condition: (B, condition_size).
            told: (B,) int64, the step from which on each place is told only what lies before that
                step, and nothing of the others from there on; None: all that lies before it.
        """
        found = torch.zeros(order.shape, device=order.device)
        for log_p, asked in self._distributions(tokens, entries, order, condition, told):
            found = found + log_p.gather(2, asked).squeeze(2)
        return found.new_zeros(tokens.shape[:2]).scatter(1, order, found)

    @torch.no_grad()
    def expected(
        self,
        tokens: Tensor,
        entries: Tensor,
        meanings: Tensor,
        order: Tensor,
        told: int,
        uniform: Tensor,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Compute what each place from a step on is expected to hold, given those before the step.

        Each is told nothing of the others from there on. Codes of a place depend on each other: the
        expectation of one is given those before it as they are drawn.

        Args:
            tokens: of all places; of those from the step on, anything.
            entries: of the codebooks.
            meanings: (codebooks, codes, n), what is averaged.
            order: (steps,), of all volumes.
            told: the step, as in `log_probability`.
            uniform: (places, codebooks) in [0, 1), the chance of each draw, by place.
            condition: (B, condition_size).

        Returns:
            (B, steps − told, codebooks, n), by step.
        """
        codes, orders = codes_of(tokens, entries), order.expand(len(tokens), -1)
        rank, step = self._rank(orders), order.new_tensor([told])
        steps, beside = self._steps(codes, orders, rank, condition, 0, len(order), step)
        hidden, beside = self.transformer(steps, told=step)[:, told:], beside[:, told:]
        chance = uniform[order[told:]].repeat(len(tokens), 1)  # (B · steps, codebooks)
        parts, found = [hidden[..., :0]], []
        for n, head in enumerate(self.to_logits):
            logits = head(hidden, beside, torch.cat(parts, dim=2)).float().flatten(0, 1)
            found.append(torch.softmax(logits, dim=1) @ meanings[n])
            drawn = entries[n, chosen(logits, chance[:, n], 1.0)]
            parts.append(drawn.view(*hidden.shape[:2], -1))
        return torch.stack(found, dim=1).unflatten(0, hidden.shape[:2])

    def _distributions(
        self,
        tokens: Tensor,
        entries: Tensor,
        order: Tensor,
        condition: Tensor | None,
        told: Tensor | None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (B, steps, n_codes) log probabilities and (B, steps, 1) tokens of each codebook."""
        codes = codes_of(tokens, entries)
        rank, batch = self._rank(order), torch.arange(len(order), device=order.device)[:, None]
        steps, beside = self._steps(codes, order, rank, condition, 0, order.shape[1], told)
        hidden = self.transformer(steps, told=told)
        known, asked = codes[batch, order], tokens[batch, order]  # in the order of the steps
        for n, head in enumerate(self.to_logits):
            log_p = torch.log_softmax(head(hidden, beside, known).float(), dim=2)
            yield log_p, asked[:, :, n : n + 1]

    @torch.no_grad()
    def draw(
        self,
        tokens: Tensor,
        entries: Tensor,
        order: Tensor,
        first: int,
        uniform: Tensor,
        condition: Tensor | None = None,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """Draw the codes of the places from a step on, given those of the steps before.

        Args:
            tokens: what stays; of the others anything.
            entries: of the codebooks.
            order: of the places.
            first: step of the first place that is drawn; 0 for all.
            uniform: (B, places, codebooks) in [0, 1), the chance of each draw, by place.
            condition: (B, condition_size).
            temperature: that log probabilities are divided by.
            top_p: see `chosen`.

        Returns:
            Tokens of all places.
        """
        tokens, codes = tokens.clone(), codes_of(tokens, entries)
        rank, every = self._rank(order), torch.arange(len(tokens), device=tokens.device)
        caches = self.transformer.caches(len(tokens), order.shape[1])
        begin = 0
        for step in range(first, order.shape[1]):
            steps, beside = self._steps(codes, order, rank, condition, begin, step + 1)
            hidden, begin = self.transformer(steps, caches)[:, -1:], step + 1
            place, parts = order[:, step], [codes[:, :1, :0]]
            for n, head in enumerate(self.to_logits):
                logits = head(hidden, beside[:, -1:], torch.cat(parts, dim=2))[:, 0].float()
                own = chosen(logits / temperature, uniform[every, place, n], top_p)
                tokens[every, place, n] = own
                parts.append(entries[n, own].unsqueeze(1))
            codes[every, place] = torch.cat(parts, dim=2)[:, 0]
        return tokens

    def _rank(self, order: Tensor) -> Tensor:
        """Step of each place, (B, places + 1); of what has none, and beyond the grid, `places`."""
        steps = torch.arange(order.shape[1], device=order.device).expand(len(order), -1)
        return order.new_full((len(order), self.places + 1), self.places).scatter(1, order, steps)

    def _steps(
        self,
        codes: Tensor,
        order: Tensor,
        rank: Tensor,
        condition: Tensor | None,
        begin: int,
        end: int,
        told: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Input of the steps from one to before another, and what lies beside each step's place.

        (B, end − begin, width) and (B, end − begin, 2 · width).

        Args:
            codes: (B, places, n) of each place; of those that are not known yet, anything.
            order: place of each step.
            rank: see `_rank`.
            condition: of each volume.
            begin: first step.
            end: after the last.
            told: see `log_probability`.
        """
        batch = torch.arange(len(codes), device=codes.device)[:, None]
        known = torch.arange(begin, end, device=codes.device).expand(len(codes), -1)
        if told is not None:
            known = torch.minimum(known, told[:, None])  # steps before this one
        asked, read = order[:, begin:end], order.gather(1, (known - 1).clamp(min=0))
        before = self.from_code(codes[batch, read]) + self.here[read]  # (B, steps, width)
        x = torch.where((known > 0)[..., None], before, self.begin) + self.there[asked]
        around = self.neighbours[asked]  # (B, steps, neighbours); beyond the grid: `places`
        is_known = rank[batch[..., None], around] < known[..., None]
        is_known = is_known.unsqueeze(3).to(codes.dtype)
        of_them = F.pad(codes, (0, 0, 0, 1))[batch[..., None], around] * is_known
        beside = self.from_neighbours(torch.cat([of_them, is_known], dim=3).flatten(2))
        x = x + self.to_step(beside)
        if self.condition is not None:
            x = x + self.condition(condition, asked)
        return x, beside


class _Head(nn.Module):
    """Logits of one of a place's codes, given the step, its neighbours, and the codes before it."""

    def __init__(self, known: int, width: int, n_codes: int) -> None:
        super().__init__()
        self.known = known
        self.from_beside = nn.Linear(2 * width, width, bias=False)
        self.from_known = nn.Linear(known, width, bias=False) if known else None
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, n_codes)
        )

    def forward(self, hidden: Tensor, beside: Tensor, codes: Tensor) -> Tensor:
        """(B, steps, width), (B, steps, 2 · width), (B, steps, ≥ known) → (B, steps, n_codes)."""
        hidden = hidden + self.from_beside(beside)
        if self.from_known is not None:
            hidden = hidden + self.from_known(codes[..., : self.known])
        return self.layers(hidden)


def codes_of(tokens: Tensor, entries: Tensor) -> Tensor:
    """(B, places, codebooks) int64 and entries → (B, places, codebooks · channels)."""
    number = torch.arange(len(entries), device=entries.device)
    return entries[number, tokens].flatten(2)


def chosen(logits: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    """Draw from each row of logits by a number of its own.

    Args:
        logits: (B, n).
        uniform: (B,) in [0, 1).
        top_p: only the likeliest are drawn, as few as have this probability together (Holtzman et
            al. 2020, arXiv:1904.09751); 1: all.

    Returns:
        (B,) int64.
    """
    probability, number = torch.softmax(logits, dim=1).sort(dim=1, descending=True, stable=True)
    reached = probability.cumsum(dim=1)
    kept = torch.where(reached - probability < top_p, probability, 0.0).cumsum(dim=1)
    below = (kept <= uniform[:, None] * kept[:, -1:]).sum(dim=1, keepdim=True)
    return number.gather(1, below.clamp(max=logits.shape[1] - 1)).squeeze(1)


def neighbour_table(grid: Sequence[int]) -> Tensor:
    """Numbers of the places around each, (places, 3^dims − 1) int64; ``places`` beyond the grid."""
    numbers = torch.arange(prod(grid)).view(*grid)
    padded = F.pad(numbers, [1, 1] * len(grid), value=prod(grid))
    shifts = [s for s in product(range(3), repeat=len(grid)) if s != (1,) * len(grid)]
    parts = [
        padded[tuple(slice(n, n + side) for n, side in zip(shift, grid, strict=True))]
        for shift in shifts
    ]
    return torch.stack([part.flatten() for part in parts], dim=1)
