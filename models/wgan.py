"""Wasserstein GAN with clipped weights and an encoder.

Arjovsky et al. 2017 (arXiv:1701.07875): what keeps the critic Lipschitz is a bound on each of its
weights. Kept for comparison; `foldnorm.models.wgan_gp` replaced it.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.convolutional_gan import ConvolutionalGAN


class WGAN(ConvolutionalGAN):
    """The Wasserstein loss, and a critic whose weights are clipped.

    A clipped critic's values have no natural scale, so ``adversarial_weight`` depends on ``clip``
    and on the critic's width.

    Args:
        shape: see `ConvolutionalGAN`; likewise what is not named here.
        n_classes: see there.
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        clip: bound of the critic's weights.
        others: see there.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        *,
        adversarial: Adversarial = "wasserstein",
        critic_steps: int = 5,
        clip: float = 0.01,
        **others: Any,
    ) -> None:
        super().__init__(
            shape,
            n_classes,
            adversarial=adversarial,
            critic_steps=critic_steps,
            clip=clip,
            **others,
        )
