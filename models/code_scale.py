"""Mean and standard deviation of a code's channels, measured while a second stage begins."""

import torch
from torch import Tensor, distributed, nn

MIN_SD = 1e-3  # of a channel that holds nothing


class CodeScale(nn.Module):
    """Codes → codes of mean 0 and standard deviation 1 in each channel, and back.

    Nothing changes before something was measured, so that a run of earlier versions, which has not
    measured, stays as it was.

    Args:
        channels: of the code.
    """

    count: Tensor
    sums: Tensor
    squares: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        # In float64, so that two processes with half a batch each come to the numbers of one.
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(channels, dtype=torch.float64))

    def normalised(self, codes: Tensor) -> Tensor:
        """Bring codes, (B, channels, *grid), to mean 0 and standard deviation 1."""
        mean, sd = self._moments(codes.ndim)
        return (codes - mean) / sd

    def restored(self, codes: Tensor) -> Tensor:
        """Bring normalised codes back to what the decoder knows, likewise."""
        mean, sd = self._moments(codes.ndim)
        return codes * sd + mean

    @torch.no_grad()
    def measure(self, codes: Tensor) -> None:
        """Add the codes of a batch, (B, channels, *grid), of all processes."""
        places = codes.double().transpose(0, 1).flatten(1)  # (channels, B · places)
        count = torch.full((1,), places.shape[1], dtype=places.dtype, device=codes.device)
        found = torch.cat([count, places.sum(1), places.square().sum(1)])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(found)
        self.count += found[0]
        self.sums += found[1 : 1 + len(self.sums)]
        self.squares += found[1 + len(self.sums) :]

    def _moments(self, ndim: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, (channels, 1, …) each; 0 and 1 before all measurement."""
        mean = self.sums / self.count.clamp(min=1)
        variance = self.squares / self.count.clamp(min=1) - mean.square()
        sd = torch.where(self.count > 0, variance.clamp(min=MIN_SD**2).sqrt(), 1.0)
        shape = (-1, *[1] * (ndim - 2))
        return mean.float().view(shape), sd.float().view(shape)

    def _load_from_state_dict(self, state_dict, prefix, *others):  # type: ignore[no-untyped-def]
        """Take up a state; one without measurements is that of a run that has made none."""
        for name, own in self.named_buffers():
            state_dict.setdefault(prefix + name, torch.zeros_like(own))
        super()._load_from_state_dict(state_dict, prefix, *others)
