"""Losses of adversarial and variational models; each is a mean over the batch."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from foldnorm.models.precision import full_float32

# Label volumes of two brains differ by 0.2 to 0.5 root mean square: this brings the critic's
# values to the order of 1, for which λ = 10 was chosen.
CRITIC_SLOPE = 10.0
NOISE_FLOOR = 1e-5  # of the squared error of an image from −1 to 1: that of 8 bits


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor, mix: Tensor
) -> Tensor:
    """Mean of (√V ‖∇D(x̂)‖₂ / K − 1)² on lines between real and generated volumes of V voxels.

    Gulrajani et al. 2017 (arXiv:1704.00028), equation 3, without λ; there √V / K = 1. This makes
    the critic K-Lipschitz in the root-mean-square distance of two volumes (K is
    `CRITIC_SLOPE`), whatever their size. In plain L2 a hundred voxels of difference already are a
    distance of 14: the critic's gradient then settles far above 1, and λ = 10 loses its meaning.

    Always in full float32: the norm of a second-order gradient underflows in half precision. So is
    to be the backward pass (`Phase.full_float32`). The critic must treat volumes one by one (no
    batch norm).

    Args:
        critic: (B, C, *sides) → (B,).
        real: (B, C, *sides) one-hot.
        generated: like ``real``.
        mix: (B,) uniform in [0, 1), the place on each line.
    """
    with full_float32(real.device):
        weight = mix.view(-1, *[1] * (real.ndim - 1))
        between = (weight * real + (1 - weight) * generated.detach()).float().requires_grad_()
        value = critic(between)
        (gradient,) = torch.autograd.grad(value.sum(), between, create_graph=True)
        voxels = gradient[0, 0].numel()
        return (voxels**0.5 / CRITIC_SLOPE * gradient.flatten(1).norm(dim=1) - 1).square().mean()


def critic_values(
    critic: Callable[[Tensor], Tensor], real: Tensor, generated: Tensor
) -> tuple[Tensor, Tensor]:
    """Values of real and generated volumes, (B,) float32 each, for the critic's own loss.

    In full float32: the loss is a difference of two nearly equal means. In bfloat16 that was wrong
    by 3 % at the first step of ``wgan_gp``, and the gradient by .3 %, for the same volumes.

    Args:
        critic: (2 B, C, *sides) → (2 B,).
        real: (B, C, *sides) one-hot.
        generated: like ``real``.
    """
    with full_float32(real.device):
        of_real, of_generated = critic(torch.cat([real, generated]).float()).chunk(2)
    return of_real, of_generated


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor, *, free_nats: float = 0.0) -> Tensor:
    """KL(N(mean, e^log_variance) ‖ N(0, I)) of (B, d) codes, nats, averaged over the batch.

    Kingma & Welling 2014 (arXiv:1312.6114), appendix B.

    Args:
        mean: (B, d).
        log_variance: (B, d).
        free_nats: that a dimension may hold before it costs anything ("free bits"; Kingma et al.
            2016, arXiv:1606.04934, appendix C.8), so that the term does not empty it. Counted brain
            by brain, not over the batch, so that a batch may be shared by processes.
    """
    nats = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return nats.clamp(min=free_nats).sum(dim=1).mean()


def soft_dice_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """1 − Dice of one class, a volume, averaged over the batch.

    Milletari et al. 2016 (arXiv:1606.04797), with a plain sum in the denominator.

    Args:
        probabilities: (B, *sides) of the class.
        target: (B, *sides), 1 where it is.
    """
    overlap = (probabilities * target).flatten(1).sum(1)
    total = probabilities.flatten(1).sum(1) + target.flatten(1).sum(1)
    return (1 - 2 * overlap / total.clamp(min=1)).mean()


def class_cross_entropy(logits: Tensor, volumes: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of each volume, nats a voxel, (B,).

    Args:
        logits: (B, C, *sides).
        volumes: (B, *sides) class numbers.
        weights: (C,); None for 1. A weight above 1 moves the decision threshold of its class and
            thickens sheets.
    """
    return F.cross_entropy(logits, volumes.long(), weights, reduction="none").flatten(1).mean(1)


def class_weights_of(weights: Sequence[float] | None, n_classes: int) -> Tensor | None:
    """Return weights of the cross entropy by class, (n_classes,) float32; None if there are none.

    Raises:
        ValueError: there is not one for each class.
    """
    if weights is not None and len(weights) != n_classes:
        raise ValueError(f"class_weights: expected one for each of {n_classes} classes, "
                         f"got {len(weights)}")  # fmt: skip
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)


def hypersphere_loss(code: Tensor, changed: Tensor) -> Tensor:
    """Cross entropy of telling edited places from others by the length of the code there, (B,).

    The hypersphere classifier (Ruff et al. 2020, arXiv:2006.00339, eq. 3), with a pseudo-Huber
    length h: h at a healthy place, −log(1 − e^−h) at one where something was edited, nats, each
    averaged over the places of its kind in a volume.

    Args:
        code: (B, channels, *grid); the centre is 0.
        changed: (B, *sides) bool, voxels that were edited.
    """
    length = (code.float().square().sum(1) + 1).sqrt() - 1
    pool = F.adaptive_max_pool2d if code.ndim == 4 else F.adaptive_max_pool3d
    is_edited = pool(changed.float().unsqueeze(1), length.shape[1:]).squeeze(1)
    away = -torch.log(-torch.expm1(-length.clamp(min=1e-6)))
    return _mean_where(length, 1 - is_edited) + _mean_where(away, is_edited)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen places of each volume, (B,); 0 where there is none."""
    return (values * chosen).flatten(1).sum(1) / chosen.flatten(1).sum(1).clamp(min=1)


def gaussian_nll_of_error(squared_error: Tensor) -> Tensor:
    """Nats a pixel under the variance that suits each image best: ½ log of its mean squared error.

    Rybkin et al. 2021 (arXiv:2006.13202), σ-VAE, section 3, without constants.

    Args:
        squared_error: (B,), mean over an image from −1 to 1.
    """
    return 0.5 * torch.log(squared_error + NOISE_FLOOR)
