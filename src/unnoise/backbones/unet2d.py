"""UNet2DModel of the diffusers library as a backbone, so that its pipelines open unchanged."""

from typing import Any

from torch import nn

from unnoise.backbones.layers import LabelEmbedding, pad
from unnoise.errors import InputError, shorten
from unnoise.registry import backbone
from unnoise.types import Images, Labels, Output, PerImage


def make_unet(**options: Any) -> Any:
    """Return UNet2DModel with these options; raise InputError if diffusers is missing or refuses them."""
    try:
        from diffusers import UNet2DModel  # noqa: PLC0415  # an optional extra
    except ImportError:
        raise InputError("backbone unet2d needs the diffusers library: pip install 'unnoise[diffusers]'") from None
    try:
        return UNet2DModel(**options)
    except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError, AttributeError, NameError) as error:
        raise InputError(f"unet2d: diffusers refuses these options: {shorten(str(error))}") from error


@backbone
class UNet2D(nn.Module):
    """Build UNet2DModel of diffusers (pip install 'unnoise[diffusers]') with its own options, for its weights.

    Raises:
        InputError: diffusers is not installed, or refuses the options.
    """

    def __init__(  # noqa: PLR0913  # the options of UNet2DModel
        self,
        channels: int,
        classes: int = 0,
        outputs: int | None = None,
        *,
        block_out_channels: tuple[int, ...] = (64, 128, 256),
        down_block_types: tuple[str, ...] = ("DownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types: tuple[str, ...] = ("UpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block: int = 2,
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        act_fn: str = "silu",
        dropout: float = 0.0,
        time_embedding_type: str = "positional",
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        downsample_padding: int = 1,
        downsample_type: str = "conv",
        upsample_type: str = "conv",
        resnet_time_scale_shift: str = "default",
        mid_block_scale_factor: float = 1.0,
        add_attention: bool = True,
        center_input_sample: bool = False,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        channels, classes, outputs = given.pop("channels"), given.pop("classes"), given.pop("outputs")
        self.net = make_unet(
            in_channels=channels, out_channels=outputs or channels, num_class_embeds=classes or None, **given
        )
        self.multiple = 2 ** (len(block_out_channels) - 1)
        if classes:  # like theirs, but the label -1 is no class
            self.net.class_embedding = LabelEmbedding(classes, self.net.time_embedding.linear_2.out_features)

    def forward(self, x: Images, time: PerImage, label: Labels | None = None) -> Output:
        padded, (rows, columns) = pad(x, self.multiple)
        if self.net.class_embedding is None:
            label = None
        elif label is None:
            label = time.new_full((len(x),), -1).long()
        out: Output = self.net(padded, time, label).sample
        return out[..., rows, columns]
