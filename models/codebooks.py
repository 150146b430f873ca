"""Codebooks that follow what an encoder gives, and what their entries stand for."""

import torch
from torch import Tensor, distributed, nn

MIN_USE = 0.1  # of an entry, as a share of even use, below which it is dead
FIRST_USE = 0.01  # that random entries begin with: what is encoded soon outweighs them
FIRST_SPREAD = 0.1  # of random entries, about that of what an untrained encoder gives
APART = 0.5  # of the halves of an entry, in standard deviations of what it stands for


class Codebooks(nn.Module):
    """Product quantisation: channels in parts, each of which has a codebook of its own.

    One entry of 256 says 8 bits of a place. A block of 4×4×4 voxels with sheets through it takes
    more, and n codebooks say n times as many without n times as many places.

    Entries are not learned by gradients: each is the moving average of what the encoder gives where
    it is the nearest (van den Oord et al. 2017, appendix A.1). One that is hardly used takes half
    of the one that leaves most unsaid, beside which it is put (Linde, Buzo & Gray 1980). Most of a
    brain is alike, and the entry that is used most says all of it: to split that helps nobody. What
    is done depends on nothing but averages over all processes, so it is the same in each and after
    a resume.

    MONAI's `EMAQuantizer` revives none, and takes longer.

    Args:
        channels: of a code, a multiple of ``count``.
        count: of codebooks.
        size: entries of each.
        decay: of the moving averages.

    Attributes:
        entries: (count, size, channels of each).

    Source:
        van den Oord et al. 2017 (arXiv:1711.00937); Jégou et al. 2011 (doi:10.1109/TPAMI.2010.57)
        for products of codebooks.
    """

    entries: Tensor
    use: Tensor  # places that an entry stands for in a batch, on average
    sums: Tensor  # of what was encoded there
    unsaid: Tensor  # squared distances of that from the entry, summed
    directions: Tensor

    def __init__(self, channels: int, count: int, size: int, decay: float) -> None:
        super().__init__()
        if count < 1 or channels % count:
            raise ValueError(
                f"code_channels: expected a multiple of {count} codebooks, got {channels}"
            )
        if size < 2 or not 0 < decay < 1:
            raise ValueError(
                f"expected two codes or more and a decay between 0 and 1, got {size} and {decay:g}"
            )
        self.count, self.size, self.width, self.decay = count, size, channels // count, decay
        entries = FIRST_SPREAD * torch.randn(count, size, self.width)
        self.register_buffer("entries", entries)
        self.register_buffer("use", torch.full((count, size), FIRST_USE))
        self.register_buffer("sums", FIRST_USE * entries)
        self.register_buffer("unsaid", torch.zeros(count, size))
        self.register_buffer("directions", torch.randn(size, self.width))

    def tokens(self, encoded: Tensor) -> Tensor:
        """(B, channels, *grid) → (B, count, *grid) int64: the nearest entry of each codebook."""
        batch, _, *grid = encoded.shape
        with torch.autocast(encoded.device.type, enabled=False):
            squares = self.entries.square().sum(2).unsqueeze(1)  # (count, 1, size)
            parts = self._parts(encoded.float())
            apart = torch.baddbmm(squares, parts, self.entries.transpose(1, 2), alpha=-2)
            nearest = apart.argmin(dim=2)  # (count, B · places)
        return nearest.view(self.count, batch, *grid).transpose(0, 1)

    def codes(self, tokens: Tensor) -> Tensor:
        """(B, count, *grid) int64 → (B, channels, *grid): the entries themselves."""
        found = [own[tokens[:, n]] for n, own in enumerate(self.entries)]  # (B, *grid, width)
        return torch.cat(found, dim=-1).movedim(-1, 1)

    @property
    def in_use(self) -> Tensor:
        """Share of the entries that are not dead, a number on the device."""
        return (self.use >= MIN_USE * self.use.mean(dim=1, keepdim=True)).float().mean()

    @torch.no_grad()
    def follow(self, encoded: Tensor, tokens: Tensor) -> None:
        """Move the entries towards what they stand for in the batches of all processes.

        Args:
            encoded: (B, channels, *grid).
            tokens: (B, count, *grid) of it.
        """
        parts = self._parts(encoded.float())
        which = tokens.transpose(0, 1).flatten(1)  # (count, B · places)
        wide = which.unsqueeze(2).expand_as(parts)
        apart = (parts - self.entries.gather(1, wide)).square().sum(2)
        found = torch.cat(
            [
                torch.zeros_like(self.use).scatter_add_(1, which, torch.ones_like(apart)),
                torch.zeros_like(self.unsaid).scatter_add_(1, which, apart),
                torch.zeros_like(self.sums).scatter_add_(1, wide, parts).flatten(1),
            ],
            dim=1,
        )
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(found)
        use, unsaid, sums = found.split([self.size, self.size, self.size * self.width], dim=1)
        self.use.lerp_(use, 1 - self.decay)
        self.unsaid.lerp_(unsaid, 1 - self.decay)
        self.sums.lerp_(sums.view_as(self.sums), 1 - self.decay)
        for n in range(self.count):
            self._revive(n)
        self.entries.copy_(self.sums / self.use.unsqueeze(2))

    def _revive(self, n: int) -> None:
        """Let dead entries of a codebook share what others stand for, without a wait."""
        use, sums, unsaid = self.use[n], self.sums[n], self.unsaid[n]
        most = unsaid.argsort(descending=True, stable=True)[: self.size // 2]
        least = use.argsort(stable=True)[: self.size // 2]
        enough = MIN_USE * use.mean()
        split = (use[least] < enough) & (use[most] > 2 * enough)
        half = torch.where(split, use[most] / 2, use[most])
        spread = (unsaid[most] / (self.width * use[most])).sqrt().unsqueeze(1)
        moved = sums[most] / use[most].unsqueeze(1) + APART * spread * self.directions[least]
        at_half = torch.where(split, unsaid[most] / 2, unsaid[most])
        sums[most] = sums[most] * (half / use[most]).unsqueeze(1)
        use[most], unsaid[most] = half, at_half
        # An entry may be on both lists: what is split is written last.
        sums[least] = torch.where(split[:, None], half[:, None] * moved, sums[least])
        use[least] = torch.where(split, half, use[least])
        unsaid[least] = torch.where(split, at_half, unsaid[least])

    def _parts(self, encoded: Tensor) -> Tensor:
        """(B, channels, *grid) → (count, B · places, width)."""
        parts = encoded.unflatten(1, (self.count, self.width)).flatten(3)
        return parts.permute(1, 0, 3, 2).flatten(1, 2)


class CodeMeanings(nn.Module):
    """Shares of the classes at each voxel of the cubes that entries of codebooks stand for.

    Averages over what was encoded lately, as the entries are themselves.

    Args:
        count: of codebooks.
        size: entries of each.
        n_classes: of the volumes.
        n_voxels: of the cube that a codebook stands for.
        decay: of the moving averages.
    """

    seen: Tensor  # places of a batch, on average

    def __init__(self, count: int, size: int, n_classes: int, n_voxels: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("seen", torch.zeros(count, size, n_classes, n_voxels))

    def probabilities(self) -> Tensor:
        """Return P(class | entry) of each voxel, (count, size, n_classes, n_voxels).

        Of an entry that nothing was encoded to, all classes are as likely.
        """
        seen = self.seen + torch.finfo(self.seen.dtype).tiny
        return seen / seen.sum(dim=2, keepdim=True)

    @torch.no_grad()
    def follow(self, tokens: Tensor, cubes: Tensor) -> None:
        """Add what was encoded in the batches of all processes.

        Args:
            tokens: (B, count, *grid) int64.
            cubes: (B, count, n_classes · n_voxels, *grid) one-hot.
        """
        which = tokens.transpose(0, 1).flatten(1).unsqueeze(2)  # (count, B · places, 1)
        shown = cubes.movedim(2, -1).transpose(0, 1).flatten(1, -2)  # (count, B · places, n)
        found = torch.zeros_like(self.seen).flatten(2)
        found.scatter_add_(1, which.expand_as(shown), shown.to(found.dtype))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(found)
        self.seen.lerp_(found.view_as(self.seen), 1 - self.decay)
