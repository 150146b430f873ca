"""U-Net of diffusion models: MONAI's, told numbers in the place of a class."""

from collections.abc import Sequence

from monai.networks.nets import DiffusionModelUNet
from torch import nn

from foldnorm.models.checkpointed import Checkpointed


def diffusion_unet(
    dims: int,
    blocks: int,
    channels: Sequence[int],
    attention: Sequence[bool],
    residual_blocks: int,
    norm_groups: int,
    activation: str,
    checkpointing: bool,
    condition_size: int,
) -> DiffusionModelUNet:
    """Build the network; arguments as of `Diffusion`, ``blocks`` being its channels in and out."""
    network = DiffusionModelUNet(
        spatial_dims=dims,
        in_channels=blocks,
        out_channels=blocks,
        num_res_blocks=residual_blocks,
        channels=channels,
        attention_levels=attention,
        norm_num_groups=norm_groups,
        num_head_channels=min(channels),
        num_class_embeds=condition_size or None,
    )
    if condition_size:
        # MONAI embeds the number of a class; ours are the numbers of any columns.
        network.class_embedding = nn.Linear(  # type: ignore[assignment]
            condition_size, 4 * channels[0]
        )
    if activation == "gelu":
        _replace_silu(network)
    if checkpointing:
        for level in (*network.down_blocks, *network.up_blocks):
            for n, block in enumerate(level.resnets):
                level.resnets[n] = Checkpointed(block)
    return network


def _replace_silu(module: nn.Module) -> None:
    """GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415) wherever there is SiLU."""
    for name, child in module.named_children():
        if isinstance(child, nn.SiLU):
            setattr(module, name, nn.GELU())
        else:
            _replace_silu(child)
