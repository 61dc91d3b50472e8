"""Built-in datasets that are downloaded from the Hugging Face hub on first use."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from unnoise.data.sources.folder import files_with_suffix
from unnoise.data.sources.parquet import read_parquet
from unnoise.data.sources.source import Source
from unnoise.data.sources.splits import read_splits
from unnoise.errors import InputError
from unnoise.registry import dataset

SPLITS = ["*train*.parquet", "*test*.parquet", "*valid*.parquet"]


@dataset
def celeba() -> Source:
    """Download faces of celebrities, 178x218 (Liu et al. 2015)."""
    return replace(download_splits("celeba", "nielsr/CelebA-faces"), classes=None)


@dataset
def cifar10() -> Source:
    """Download ten classes of small photos, 32x32 (Krizhevsky 2009)."""
    return download_splits("cifar10", "uoft-cs/cifar10")


@dataset
def fashion_mnist() -> Source:
    """Download ten classes of clothes in gray, 28x28 (Xiao et al. 2017)."""
    return download_splits("fashion_mnist", "zalando-datasets/fashion_mnist")


def download_splits(name: str, repo: str) -> Source:
    """Download the splits, or find them in the hub's own cache; the test split is held out."""
    by_hand = (
        f"download it by hand from https://huggingface.co/datasets/{repo} and give the folder, "
        "or use 'faces', which needs no download"
    )
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise InputError(f"{name} is downloaded: pip install 'unnoise[hub]'; or {by_hand}") from None
    try:
        folder = snapshot_download(repo, repo_type="dataset", allow_patterns=SPLITS)
    except Exception as error:  # noqa: BLE001 - which errors the client raises differs between its versions
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name} needs an internet connection for its first use ({reason}); {by_hand}") from None
    return read_splits(files_with_suffix(Path(folder), ".parquet"), partial(read_parquet, name=name))
