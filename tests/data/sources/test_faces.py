"""The built-in cartoon faces: the same everywhere, all different, at any size."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unnoise.data.sources.faces.faces import GROUNDS, KINDS, attributes, face, faces
from unnoise.errors import InputError
from unnoise.registry import dataset

pytestmark = pytest.mark.usefixtures("unchecked")


def pixels(index, size=(32, 32)):
    return np.asarray(face(index, size)[0], dtype=np.int16)


def digest(count=20):
    return hashlib.sha256(b"".join(face(i)[0].tobytes() + str(face(i)[1]).encode() for i in range(count))).hexdigest()


def test_a_face_depends_on_its_index_only():
    first = digest()
    face(999, (48, 48))
    assert digest() == first


def test_another_process_draws_the_same_faces():
    # Its string hashes differ from ours, so that nothing may hang on hash() or on the order of a set.
    code = "import test_faces; print(test_faces.digest())"
    places = [str(Path(__file__).parent), *sys.path]
    run = [sys.executable, "-c", f"import sys; sys.path[:0] = {places!r}; {code}"]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == digest()


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (33, 47), (47, 33), (256, 256), (9, 200), (200, 9)])
def test_any_size_is_filled(size):
    for index in range(12):
        image, _ = face(index, size)
        assert (image.mode, image.size) == ("RGB", size)
        assert np.asarray(image).std() > 10


def test_faces_are_all_different():
    assert len({face(index, (32, 32))[0].tobytes() for index in range(2000)}) == 2000


@pytest.mark.parametrize("large", [64, 128, 256])
def test_sizes_show_the_same_face(large):
    for index in range(40):
        reduced = np.asarray(face(index, (large, large))[0].reduce(large // 32), dtype=np.int16)
        same = np.abs(reduced - pixels(index)).mean()
        other = np.abs(reduced - pixels(index + 1)).mean()
        assert same < 4
        assert other > 15


def test_a_face_keeps_its_proportions():
    for index in range(40):
        square, wide = pixels(index, (64, 64)), pixels(index, (128, 64))[:, 32:96]
        # The background may differ (a gradient or rays reach further); the middle of the face may not.
        assert np.abs(square[16:48, 20:44] - wide[16:48, 20:44]).mean() < 1


def test_nothing_is_cut_off():
    for index in range(400):
        image, color = pixels(index, (64, 64)), GROUNDS[attributes(index)["background"]]
        edge = np.concatenate([image[0], image[:40, 0], image[:40, -1]])  # lower down are the shoulders
        pale = np.array(color) + (np.array([255, 253, 250]) - color) * 0.4
        low, high = np.minimum(color, pale) - 2, np.maximum(color, pale) + 2
        assert ((edge >= low) & (edge <= high)).all(), index


def test_edges_are_smooth():
    for index in range(20):
        colors = Counter(map(tuple, pixels(index, (64, 64)).reshape(-1, 3).tolist()))
        assert len(colors) > 150  # a flat drawing without smooth edges has about twenty


def test_every_word_occurs_as_often_as_it_is_listed():
    drawn = [attributes(index) for index in range(4000)]
    for key, words in KINDS.items():
        found = Counter(kind[key] for kind in drawn)
        hidden = found.pop("hidden") if key == "eyes" else 0
        assert set(found) == set(words)
        for word, times in Counter(words).items():
            assert found[word] == pytest.approx((4000 - hidden) * times / len(words), rel=0.25)


def test_attributes_are_independent():
    pairs = Counter((kind["skin"], kind["hat"]) for kind in map(attributes, range(8000)))
    assert len(pairs) == 7 * 6
    assert min(pairs.values()) > 8000 / 56 * 0.7


def test_eyes_are_hidden_by_sunglasses_only():
    for kind in map(attributes, range(500)):
        assert (kind["eyes"] == "hidden") == (kind["glasses"] == "sunglasses")


def test_attributes_show():
    hats = {True: [], False: []}
    for index in range(600):
        hats[attributes(index)["hat"] == "tophat"].append(pixels(index)[4:9, 12:20].mean())
    assert np.mean(hats[True]) < np.mean(hats[False]) - 20  # a top hat is dark


@pytest.mark.parametrize("label", list(KINDS))
def test_source_agrees_with_face(label):
    source = dataset.get(f"faces:count=30,label={label}")()
    items = list(source.items())
    assert source.count == len(items) == 30
    assert [item.name for item in items][:2] == ["000000", "000001"]
    for index, item in enumerate(items):
        image, kind = face(index, (16, 20))
        assert item.label == kind[label]
        drawn = item.content((16, 20))
        assert isinstance(drawn, Image.Image)
        assert drawn.tobytes() == image.tobytes()


def test_source_can_be_read_again():
    source = faces(count=3)
    assert [item.label for item in source.items()] == [item.label for item in source.items()]
    assert source.name == "faces"
    assert len({source.key, faces(count=4).key, faces(count=3, label="hair").key}) == 3


def test_all_labels_are_offered():
    with pytest.raises(InputError, match="did you mean 'hat'"):
        dataset.get("faces:label=hatt")


@pytest.mark.parametrize("count", [0, -5])
def test_no_faces_is_an_error(count):
    with pytest.raises(InputError, match="count takes 1 or more"):
        faces(count=count)


def test_faces_draw_themselves(load):
    assert load("faces:count=3").shape == (3, 32, 32)
    data = load("faces:count=3", size="24x40")
    assert (len(data), data.shape) == (3, (3, 40, 24))
    assert not [note for note in data.notes if "crop" in note]
    assert len(load("faces:count=3", limit=2)) == 2
