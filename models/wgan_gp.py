"""Wasserstein GAN with gradient penalty and an encoder: a VAE-GAN on label volumes.

Gulrajani et al. 2017 (arXiv:1704.00028) for the critic; the encoder is that of `EncoderGAN`.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.convolutional_gan import ConvolutionalGAN


class WGANGP(ConvolutionalGAN):
    """The Wasserstein loss, and a penalty on the critic's gradient.

    The critic is Lipschitz in root-mean-square distance, so one ``adversarial_weight`` suits all
    sizes.

    Args:
        shape: see `ConvolutionalGAN`; likewise what is not named here.
        n_classes: see there.
        adversarial: name of the adversarial loss.
        critic_steps: critic steps a generator step.
        penalty_weight: λ of the gradient penalty.
        others: see there.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        *,
        adversarial: Adversarial = "wasserstein",
        critic_steps: int = 5,
        penalty_weight: float = 10.0,
        **others: Any,
    ) -> None:
        super().__init__(
            shape,
            n_classes,
            adversarial=adversarial,
            critic_steps=critic_steps,
            penalty_weight=penalty_weight,
            **others,
        )
