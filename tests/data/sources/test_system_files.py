"""Files that systems and programs leave between images are passed over, counted and named."""

import os
import subprocess
import sys

import pytest

from image_files import encoded, noise, put, write_tar, write_zip
from unnoise.data.sources.find import find
from unnoise.data.sources.folder import walk_files

LEFTOVERS = [
    "@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg",
    "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "#recycle/old.jpg",
    "#snapshot/old.jpg",
    "@Recycle/old.jpg",
    "@Recently-Snapshot/old.jpg",
    "$RECYCLE.BIN/S-1-5/$R1.jpg",
    "RECYCLER/old.jpg",
    "System Volume Information/x.jpg",
    "lost+found/#123.jpg",
    ".Trash/old.jpg",
    ".Trash-1000/files/old.jpg",
    ".Trashes/501/old.jpg",
    ".ipynb_checkpoints/x-checkpoint.jpg",
    ".picasaoriginals/x.jpg",
    ".thumbnails/large/x.jpg",
    ".@__thumb/x.jpg",
    "Lightroom Catalog Previews.lrdata/0/x.jpg",
    "__MACOSX/a/._1.jpg",
    "a/._1.jpg",
    ".git/logo.jpg",
    "Thumbs.db",
    "desktop.ini",
    ".DS_Store",
]
KEPT = ["a/1.jpg", "b/recycle.jpg", "b/2.jpg"]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "streamed"])
def test_leftovers_are_passed_over_and_counted(tmp_path, load, kind):
    image = encoded(noise(8, 8), "JPEG")
    members = dict.fromkeys([*LEFTOVERS, *KEPT], image)
    path = tmp_path / f"set.{kind}"
    if kind in ("folder", "streamed"):
        for name, content in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    else:
        (write_zip if kind == "zip" else write_tar)(path, members)
    data = load(path, stream=kind == "streamed")
    assert (len(data), data.classes) == (3, ("a", "b"))
    hidden = sum(name.endswith(".jpg") for name in LEFTOVERS)
    (note,) = [note for note in data.notes if "passed over" in note]
    assert note.startswith(f"passed over {hidden} images in hidden files and files of the system: @eaDir 2, ")
    assert not any("ignored" in note for note in data.notes)


def test_masks_are_named_with_a_way_to_leave_them_out(root, load):
    for name in ("1.jpg", "2.jpg", "2-mask.png", "masks/1.png", "a/x_seg.png", "annotations/trimaps/1.png"):
        put(root, name, noise(8, 8))
    (note,) = [note for note in load(root).notes if "named like" in note]
    assert note.startswith(
        "4 of 6 images are named like masks and are trained on: 2-mask.png, ...; to leave them out, "
    )


@pytest.mark.parametrize(
    "names", [["with_mask/1.png", "without_mask/1.png"], ["unmask/1.png", "a/damask.png"], ["masks/1.png"]]
)
def test_other_names_are_no_masks(root, load, names):
    for name in names:
        put(root, name, noise(8, 8))
    assert not any("named like masks" in note for note in load(root).notes)


# Links, deep folders and long paths


def test_folders_deeper_than_the_stack_of_python(root):
    deepest = root / "/".join("d" * 1_010)
    for folder in [*reversed(deepest.parents), deepest]:
        folder.mkdir(exist_ok=True)
    (deepest / "x.png").write_bytes(encoded(noise(8, 8)))
    assert [path.name for path in walk_files(root)] == ["x.png"]
    (deepest / "x.png").unlink()
    for folder in [deepest, *deepest.parents][:1_010]:  # deeper than pytest can remove
        folder.rmdir()


def test_many_links_to_the_next_folder_are_walked_once(root):
    for i in range(20):
        put(root, f"{i}/x.png", noise(8, 8))
        if i < 19:
            for link in ("a", "b"):
                (root / str(i) / link).symlink_to(f"../{i + 1}")
    assert len([*walk_files(root)]) == 20


def test_links_to_folders_elsewhere_are_read_once_and_hidden_ones_count(root, tmp_path):
    put(tmp_path, "elsewhere/1.png", noise(8, 8))
    put(root, ".store/2.png", noise(8, 8))
    put(root, "c/3.png", noise(8, 8))
    for name, target in {
        "a": "../elsewhere",
        "b": "../elsewhere",
        "d": ".store",
        "0": "c",
        "up": "..",
        "self": "self",
    }.items():
        (root / name).symlink_to(target)
    assert [item.name for item in find(root).items()][:3] == ["a/1.png", "c/3.png", "d/2.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="paths have another limit there")
def test_folders_deeper_than_a_path_may_be_long_do_not_end_everything(root, load):
    put(root, "a.png", noise(8, 8))
    put(root, "z.png", noise(8, 8))
    inside = os.open(root, os.O_RDONLY)
    for _ in range(18):
        os.mkdir("d" * 240, dir_fd=inside)
        below = os.open("d" * 240, os.O_RDONLY, dir_fd=inside)
        os.close(inside)
        inside = below
    file = os.open("x.png", os.O_WRONLY | os.O_CREAT, dir_fd=inside)
    os.write(file, encoded(noise(8, 8)))
    os.close(file)
    os.close(inside)
    data = load(root)
    assert len(data) == 2
    assert any(
        "passed over 1 folders that cannot be listed" in note and "File name too long" in note for note in data.notes
    )
    assert len(load(root, stream=True)) == 2
    subprocess.run(["rm", "-rf", root / "deep"], check=True)  # Python's own removal, which pytest uses, goes too deep
