"""Feature extractors: networks that describe images by numbers, so that two sets of images can be compared.

They see images in 8 bits, as an image file holds them.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise import registry
from unnoise.device import without_autocast
from unnoise.errors import InputError
from unnoise.images import Uint8Images
from unnoise.options import Spec
from unnoise.pretrained.efficientnet import load_efficientnet, weights_file
from unnoise.registry import features

Extracted: TypeAlias = tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]  # features, class probabilities


class Extractor(NamedTuple):
    """A feature extractor, and the facts that must be equal for two scores to be comparable."""

    extract: Callable[[Uint8Images], Extracted]  # of RGB images [b, 3, h, w]
    features: int
    classes: int  # 0 if it knows no classes
    about: dict[str, str]  # network, weights (their sha256), resize
    cacheable: bool = True  # `about` names all that the features depend on, so statistics of data may be cached

    def __call__(self, pixels: Uint8Images) -> Extracted:
        """Return the features and class probabilities of images with 1 to 4 channels, in the extractor's own precision.

        A training measures KID within its own, lower precision, which must not round features that are cached.
        """
        with without_autocast():
            return self.extract(as_rgb(pixels))


def open_extractor(spec: Spec) -> Extractor:
    """Make the feature extractor that a spec or a callable names.

    Args:
        spec: A registered name with options, or a callable without arguments that returns an `Extractor`.

    Raises:
        InputError: If the callable returns anything else.
    """
    name, made = registry.features.text(spec), registry.features.get(spec)()
    if not isinstance(made, Extractor):
        raise InputError(
            f"features {name} gives {type(made).__name__}; it must return an Extractor of unnoise.evaluation.features"
        )
    about = {"network": name, "weights": "unknown", "resize": "resize unknown", **made.about}
    return made._replace(about=about, cacheable=made.cacheable and not registry.is_own(name))


def fitting(spec: Spec, side: int) -> Spec:
    """Return an efficientnet whose size is not named with the size that images of this shorter side need.

    At 64, large images that consist of blocks would look like real ones.
    """
    text = registry.features.text(spec)
    if text not in (FIRST, SECOND) or side <= DEFAULT_SIDE:
        return spec
    return f"{text}{',' if ':' in text else ':'}size={min(side, NATIVE_SIDE)}"


FIRST, SECOND = "efficientnet", "efficientnet:model=lite2"  # the two judges of every score
MAX_SIZE = 1_024  # pixels
DEFAULT_SIDE, NATIVE_SIDE = 64, 224  # pixels: for images up to 64, and the size that EfficientNet-Lite0 was trained on
SCALE = 0.25  # of the features: their mean square is then about 1, and the cube alone does not rule the kernel of KID


@features
def efficientnet(*, model: Literal["lite0", "lite1", "lite2"] = "lite0", size: int = 64) -> Extractor:
    """Extract 320 or 352 features by EfficientNet-Lite, trained on ImageNet: Tan & Le 2019 (arXiv:1905.11946).

    They are the channels of the last block, averaged over the image.

    Args:
        model: lite0 and lite1 have 320 features, lite2 has 352. unnoise installs the weights of lite0 and lite2.
        size: The shorter side in pixels as the network sees it. lite0 was trained on 224, which takes 12 times the
            time.

    Raises:
        InputError: If the size is not from 32 to 1,024, or the package with the weights is not installed.
    """
    if not 32 <= size <= MAX_SIZE:
        raise InputError(f"features efficientnet: size takes 32 to {MAX_SIZE:,}, got {size}")
    path = weights_file(model, "features efficientnet")
    network = load_efficientnet(str(path), model).to("cuda" if torch.cuda.is_available() else "cpu")

    def extract(pixels: Uint8Images) -> Extracted:
        device = next(network.parameters()).device
        found, logits = network(resized(pixels.to(device), size))
        return SCALE * found, logits.softmax(dim=1)

    about = {"network": f"efficientnet-{model}:size={size}", "weights": sha256(path), "resize": f"bilinear to {size}"}
    return Extractor(extract, network.features, 1000, about)


INCEPTION = "6726825d"  # the sha256 of the weights of 2015, as torch-fidelity published them, begins with this


@features
def inception(*, weights: str = "") -> Extractor:
    """Extract the 2048 features of published FIDs by Inception: Szegedy et al. 2015 (arXiv:1512.00567).

    torch-fidelity has the network and TensorFlow's resize to 299x299.

    Args:
        weights: The file pt_inception-2015-12-05-6726825d.pth of torch-fidelity; by default it is downloaded.

    Raises:
        InputError: If torch-fidelity is missing, the file is another one, or the download fails.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415  # an extra
            FeatureExtractorInceptionV3,
        )
    except (ImportError, RuntimeError):  # RuntimeError: torchvision does not fit torch
        raise InputError("features inception needs torch-fidelity: pip install 'unnoise[fidelity]'") from None
    if weights and not (Path(weights).is_file() and sha256(Path(weights)).startswith(INCEPTION)):
        raise InputError(
            f"{weights} is not pt_inception-2015-12-05-6726825d.pth of torch-fidelity, the one file of weights that is "
            "opened here"
        )
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], weights or None)
    except OSError as error:
        raise InputError(
            f"the weights of Inception can't be downloaded ({error}); name a file: inception:weights=FILE"
        ) from None

    def extract(pixels: Uint8Images) -> Extracted:
        found, logits = network(pixels.cpu())
        return found, logits.softmax(dim=1)

    digest = weights_digest(network)
    about = {"network": "inception-2015", "weights": digest, "resize": "TensorFlow 1 bilinear to 299x299"}
    return Extractor(extract, 2048, 1008, about)


@features
def dinov2(*, model: str = "facebook/dinov2-large") -> Extractor:
    """Extract the class token of DINOv2, Oquab et al. 2023 (arXiv:2304.07193), as Stein et al. 2023 (arXiv:2306.04675).

    The package transformers has the network, which sees 224x224 pixels and knows no classes.

    Args:
        model: A folder with the network, or its name on the Hugging Face hub, from which it is downloaded.

    Raises:
        InputError: If transformers is missing, or `model` is not a DINOv2.
    """
    network = open_dinov2(model)
    weights = weights_digest(network.eval().float())
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def extract(pixels: Uint8Images) -> Extracted:
        large = F.interpolate(pixels.float(), (224, 224), mode="bicubic", antialias=True).round().clamp(0, 255)
        found = network(((large / 255 - mean.to(large)) / std.to(large)).to(network.device)).pooler_output
        return found, found.new_empty(len(found), 0)

    about = {"network": "dinov2", "weights": weights, "resize": "bicubic to 224x224"}
    return Extractor(extract, network.config.hidden_size, 0, about)


def open_dinov2(model: str) -> Any:
    """Open a DINOv2 of transformers; raise InputError if it is missing or another network."""
    try:
        from transformers import Dinov2Model  # noqa: PLC0415  # an extra
    except ImportError:
        raise InputError("features dinov2 needs transformers: pip install 'unnoise[dinov2]'") from None
    try:
        found: Any = Dinov2Model.from_pretrained(model, use_safetensors=True, output_loading_info=True)
        network, loaded = found
        wrong = "it is another network" if loaded["missing_keys"] or loaded["unexpected_keys"] else ""
    except (OSError, ValueError) as error:
        wrong = str(error).strip().splitlines()[0]
    if wrong:
        raise InputError(f"features dinov2: no DINOv2 at {model!r} ({wrong}); name its folder: dinov2:model=FOLDER")
    return network


def weights_digest(network: nn.Module) -> str:
    """Return the sha256 of the weights of a network."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def resized(pixels: Uint8Images, size: int) -> Float[Tensor, "b _ _ _"]:
    """Scale pixels to [-1, 1] and the shorter side to `size`; shrinking is smoothed."""
    x, scale = pixels.float() / 127.5 - 1, size / min(pixels.shape[-2:])
    wanted = [round(scale * side) for side in pixels.shape[-2:]]
    small = F.interpolate(x, wanted, mode="bilinear", antialias=True) if wanted != [*x.shape[-2:]] else x
    return small.to(memory_format=torch.channels_last)


def as_rgb(pixels: Uint8Images) -> UInt8[Tensor, "b 3 _ _"]:
    """Return RGB images: gray is repeated, and images with alpha are laid over white."""
    channels = pixels.shape[1]
    if channels > 4:
        raise InputError(f"features are of images of 1 to 4 channels, not {channels}")
    if channels in (2, 4):
        alpha = pixels[:, -1:].float() / 255
        pixels = (pixels[:, :-1] * alpha + 255 * (1 - alpha)).round().byte()
    return pixels.expand(-1, 3, -1, -1)


def sha256(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
