"""Adversarial losses by name, for a critic whose output is one unbounded number a volume."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Adversarial = Literal["minimax", "non-saturating", "least-squares", "wasserstein"]


def critic_loss(name: Adversarial, of_real: Tensor, of_generated: Tensor) -> Tensor:
    """Return the critic's loss, without penalties, averaged over the batch.

    ``minimax`` and ``non-saturating``: −log σ(D(x)) − log(1 − σ(D(G(z)))) (Goodfellow et al. 2014,
    arXiv:1406.2661, equation 1). ``least-squares``: ½ (D(x) − 1)² + ½ D(G(z))² (Mao et al. 2017,
    arXiv:1611.04076, equation 9). ``wasserstein``: D(G(z)) − D(x) (Arjovsky et al. 2017,
    arXiv:1701.07875, algorithm 1).

    Args:
        name: of the loss.
        of_real: (B,) values of real volumes.
        of_generated: (B,) values of generated ones.
    """
    if name == "wasserstein":
        return of_generated.mean() - of_real.mean()
    if name == "least-squares":
        return 0.5 * (of_real - 1).square().mean() + 0.5 * of_generated.square().mean()
    return F.softplus(-of_real).mean() + F.softplus(of_generated).mean()


def generator_loss(name: Adversarial, of_generated: Tensor) -> Tensor:
    """Return the generator's adversarial loss, averaged over the batch.

    ``minimax``: log(1 − σ(D(G(z)))), which saturates; ``non-saturating``: −log σ(D(G(z)));
    ``least-squares``: ½ (D(G(z)) − 1)²; ``wasserstein``: −D(G(z)).
    """
    if name == "wasserstein":
        return -of_generated.mean()
    if name == "least-squares":
        return 0.5 * (of_generated - 1).square().mean()
    if name == "minimax":
        return -F.softplus(of_generated).mean()
    return F.softplus(-of_generated).mean()


@torch.no_grad()
def clip_weights(critic: torch.nn.Module, bound: float) -> None:
    """Clip every weight of a critic to ±``bound`` (Arjovsky et al. 2017, algorithm 1)."""
    for parameter in critic.parameters():
        parameter.clamp_(-bound, bound)
