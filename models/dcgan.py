"""Deep convolutional GAN with an encoder.

Radford et al. 2016 (arXiv:1511.06434): strided convolutions, a norm in all networks, leaky ReLU,
the non-saturating loss. Group norm stands where the paper has batch norm: the statistics of a
batch would make a volume's value depend on its neighbours, and two processes differ from one.
"""

from collections.abc import Sequence
from typing import Any

from foldnorm.models.adversarial_losses import Adversarial
from foldnorm.models.convolutional_gan import ConvolutionalGAN


class DCGAN(ConvolutionalGAN):
    """Norms, and a discriminator of real against generated.

    Args:
        shape: see `ConvolutionalGAN`; likewise what is not named here.
        n_classes: see there.
        norm: group norm in all three networks.
        adversarial: name of the adversarial loss.
        others: see there.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 3,
        *,
        norm: bool = True,
        adversarial: Adversarial = "non-saturating",
        **others: Any,
    ) -> None:
        super().__init__(
            shape,
            n_classes,
            norm=norm,
            critic_norm=norm,
            adversarial=adversarial,
            **others,
        )
