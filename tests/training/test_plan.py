"""What is said of a training before it starts."""

import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from tiny import TINY
from unnoise import registry
from unnoise.config import TrainConfig
from unnoise.device import free_memory, release_memory
from unnoise.distributed import refuse_sharding
from unnoise.errors import InputError
from unnoise.training.clock import Clock
from unnoise.training.plan import (
    ENOUGH,
    EXTRA_BYTES,
    OVERHEAD,
    WITHOUT_BUDGET,
    Plan,
    TooLargeError,
    loss_of_zeros,
    make_plan,
    rehearse,
    squares,
    unet,
)

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = partial(squares, (1, 4, 4))
ADAMW = partial(registry.optimizer.get("adamw"), lr=1e-3, weight_decay=0.0)


class Slow(nn.Module):
    """A millisecond an image, more the first time, and dropout, which draws random numbers."""

    def __init__(self):
        super().__init__()
        self.layer, self.dropout, self.sizes = nn.Conv2d(1, 1, 1), nn.Dropout(), []

    def forward(self, x, time_, label=None):
        time.sleep(0.001 * len(x) + 0.1 * (len(x) not in self.sizes))
        self.sizes.append(len(x))
        return self.dropout(self.layer(x))

    def __deepcopy__(self, memo):
        other = Slow()
        other.load_state_dict(self.state_dict())
        other.sizes = self.sizes  # so that the test sees them
        return other


def test_the_pace_is_that_of_full_batches():
    network = Slow()
    plan = rehearse(network, ADAMW, SMALL, 64, nullcontext)
    assert max(network.sizes) == 64
    assert 0.5 * 1000 < plan.images_per_second < (1 - OVERHEAD) * 1000


def test_large_batches_are_told_from_small_ones(monkeypatch):
    """10 MB an image beside 100 MB; nothing is told where what is held from before is enough."""
    network, peaks = Slow(), iter([90, 180, 260, 300, 300, 300])
    monkeypatch.setattr("unnoise.training.plan.FULL_BATCH", 0.01)
    monkeypatch.setattr("unnoise.training.plan.recent_peak", lambda: next(peaks) * 2**20)
    monkeypatch.setattr("unnoise.training.plan.peak_memory", lambda: 0)
    plan = rehearse(network, ADAMW, SMALL, 100, nullcontext)
    assert max(network.sizes) == 16
    assert 0.5 * 1000 < plan.images_per_second < 1000
    assert plan.peak_bytes == pytest.approx(
        (100 + 10 * 100) * 2**20 + EXTRA_BYTES, abs=100
    )  # and a state of two weights
    assert rehearse(network, ADAMW, SMALL, 100, nullcontext).peak_bytes == 0


@pytest.mark.parametrize("spec", ["unet:widths=8,layers=1,groups=4", "dit:width=16,depth=1,heads=2,patch=2"])
def test_networks_of_every_kind_can_be_rehearsed(spec):
    """With classes, with a learned variance, and with a weight that is not taught."""
    network = registry.backbone.get(spec)(1, 3, 2)
    next(network.parameters()).requires_grad_(requires_grad=False)
    for optimizer in registry.optimizer.names():
        make = partial(registry.optimizer.get(optimizer), lr=1e-3, weight_decay=0.0)
        assert rehearse(network, make, partial(squares, (1, 8, 8)), 1, nullcontext).images_per_second > 0


def test_a_network_that_is_too_large_is_tried_on_one_image(monkeypatch):
    network = Slow()
    monkeypatch.setattr("unnoise.training.plan.SMALL_STEP", 0.0005)
    monkeypatch.setattr("unnoise.training.plan.FULL_BATCH", 0.001)
    rehearse(network, ADAMW, SMALL, 100, nullcontext)
    assert set(network.sizes) == {1}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc, which keeps what is free")
def test_what_is_free_goes_back_to_the_system():
    """So that what one network took does not hide what the next one takes."""
    process, held = psutil.Process(), [torch.ones(25_000) for _ in range(2_000)]
    before = process.memory_info().rss
    del held[:-1]  # the last one keeps the heap from shrinking by itself
    release_memory()
    assert process.memory_info().rss < before - 150 * 2**20  # of 200 MB


def test_a_rehearsal_leaves_no_trace():
    network = Slow()
    weights, random = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    rehearse(network, ADAMW, SMALL, 8, nullcontext)
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in network.parameters())


WIDTHS, SHAPE = (8, 12, 16, 24), (1, 8, 8)


def told(monkeypatch, pace, peak=0):
    monkeypatch.setattr("unnoise.training.plan.WIDTHS", WIDTHS)
    monkeypatch.setattr(
        "unnoise.training.plan.rehearse", lambda network, *_: Plan(pace(network.conv_in.out_channels), peak)
    )


def chosen(**given):
    return make_plan(TrainConfig(precision="fp32", **given), SHAPE, ENOUGH).backbone


def test_the_longer_the_time_the_wider_the_network(monkeypatch):
    """Each network, at its own pace, sees enough images; the next wider one would not."""
    told(monkeypatch, lambda width: ENOUGH * (8 / width) ** 2)
    found = []
    for seconds in (0.5, 8, 40, 300):
        seen = {width: seconds * ENOUGH * (8 / width) ** 2 for width in WIDTHS}
        most = max((w for w in WIDTHS if seen[w] >= ENOUGH * (w / WIDTHS[0]) ** 3), default=WIDTHS[0])
        assert chosen(budget=f"{seconds}s") == unet(most, SHAPE)
        found.append(most)
    assert found == [*WIDTHS]


def test_a_network_that_is_slower_than_promised_is_not_taken(monkeypatch):
    """By the pace of 8 there is time for 12; by its own there is not."""
    told(monkeypatch, lambda width: ENOUGH * (8 / width) ** 3)
    assert chosen(budget="8s") == unet(8, SHAPE)
    assert chosen(budget="12s") == unet(12, SHAPE)


def test_the_precision_is_chosen_by_the_device(monkeypatch):
    """Whatever network is taken, and however fast the machine is at the moment."""
    told(monkeypatch, lambda width: ENOUGH * (8 / width) ** 3)
    for fast, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("unnoise.training.precision.fast_bf16", lambda _, fast=fast: fast)
        ready = make_plan(TrainConfig(budget="5.2s"), SHAPE, ENOUGH)
        assert (ready.backbone, ready.precision) == (unet(8, SHAPE), precision)


def test_a_network_that_memory_does_not_hold_is_not_taken(monkeypatch):
    told(monkeypatch, lambda width: 1e9 / width if width < 16 else pytest.fail("tried"), 10**18)
    assert chosen(budget="1h") == unet(8, SHAPE)

    def pace(width):
        if width > 12:
            raise torch.OutOfMemoryError
        return 1e9

    told(monkeypatch, pace)
    assert chosen(budget="1h") == unet(12, SHAPE)


def test_without_a_budget_the_network_is_always_the_same_or_the_one_named(monkeypatch):
    """On every machine."""
    told(monkeypatch, lambda _: 1e9)
    assert chosen(images="1000M") == chosen(epochs=1000) == unet(WITHOUT_BUDGET, SHAPE)
    assert chosen(budget="1h", backbone="unet:widths=32,layers=1,groups=4") == "unet:widths=32,layers=1,groups=4"


def test_large_images_have_one_more_scale():
    assert unet(64, (3, 47, 64)) == "unet:widths=64-64-96,layers=2,patch=2,groups=8,head=32"
    assert unet(64, (3, 48, 64)) == "unet:widths=32-64-64-96,layers=2,patch=2,groups=8,head=32"


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        (Clock(600.0, None), "30,000 images, each 3.0 times, in 10:00, done at 12:10"),
        (Clock(None, 3000.0), "3,000 images, each 0.3 times, in 1:00, done at 12:01"),
        (Clock(600.0, None, seen=12_000, before=180.0), "33,000 images, each 3.3 times, in 7:00, done at 12:07"),
        (Clock(None, 3000.0, seen=1500, before=20.0), "3,000 images, each 0.3 times, in 0:30, done at 12:00"),
        (Clock(600.0, 3000.0), "3,000 images, each 0.3 times, in 1:00, done at 12:01"),
        (Clock(600.0, 50_000.0), "30,000 images, each 3.0 times, in 10:00, done at 12:10"),
    ],
)
def test_a_plan_in_words(clock, words):
    text = Plan(50.0, 700 * 2**20).in_words(clock, 10_000, datetime(2026, 1, 1, 12, 0))  # noqa: DTZ001
    assert words in text
    assert "about 50 images/s" in text
    assert "memory up to about 700 MB" in text
    assert "memory" not in Plan(50.0, 0).in_words(clock, 10_000, datetime(2026, 1, 1, 12, 0))  # noqa: DTZ001


def test_engines_that_shard_the_weights_are_refused(monkeypatch):
    """As `accelerate launch --use_fsdp` asks for: training would go wrong in silence."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match="start the processes without FSDP"):
        refuse_sharding()


@pytest.mark.skipif(
    torch.cuda.is_available() or not Path("/proc/self/clear_refs").exists(),
    reason="the peak begins anew on Linux alone",
)
def test_what_was_taken_before_hides_no_plan():
    """Memory that decoding took, and gave back, is more than all of a small training takes."""
    code = """if True:
        from contextlib import nullcontext
        from functools import partial
        import torch
        from unnoise import registry
        from unnoise.device import peak_memory
        from unnoise.training.plan import rehearse, squares
        held = b"1" * 2**30
        del held
        network = registry.backbone.get("unet:widths=8,layers=1,groups=4")(1)
        loss = partial(squares, (1, 32, 32))
        plan = rehearse(network, lambda n: torch.optim.SGD(n.parameters()), loss, 64, nullcontext)
        print(plan.peak_bytes, peak_memory())
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    planned, peak = map(int, told.split())
    assert planned >= peak > 2**30


@pytest.mark.skipif(torch.cuda.is_available(), reason="the peak is of the GPU there")
def test_the_peak_memory_is_not_that_of_the_process_that_started_this_one():
    """Which is what Linux's getrusage tells where that one was larger."""
    tell = "from unnoise.device import peak_memory; print(peak_memory())"
    code = f"import subprocess, sys; held = b'1' * 2**30; subprocess.run([sys.executable, '-c', {tell!r}], check=True)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert 2**25 < int(told) < 2**30


class Limited(nn.Module):
    """A network that memory holds for a number of images."""

    def __init__(self, most):
        super().__init__()
        self.layer, self.most, self.sizes = nn.Conv2d(1, 1, 1), most, []

    def forward(self, x, time_, label=None):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)

    def __deepcopy__(self, memo):
        other = Limited(self.most)
        other.sizes = self.sizes
        return other


def test_where_memory_is_short_a_plan_takes_parts_of_a_batch():
    plan = rehearse(Limited(3), ADAMW, SMALL, 64, nullcontext)
    assert plan.at_once == 2
    with pytest.raises(TooLargeError, match="even for one image at a time"):
        rehearse(Limited(0), ADAMW, SMALL, 64, nullcontext)


def test_a_clock_that_stands_still_breaks_no_plan(monkeypatch):
    """As that of some systems does for 16 ms."""
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    assert rehearse(Limited(64), ADAMW, SMALL, 8, nullcontext).images_per_second > 0


def test_a_batch_is_not_larger_than_the_data(monkeypatch):
    sizes = []
    monkeypatch.setattr("unnoise.training.plan.rehearse", lambda *given: sizes.append(given[3]) or Plan(1.0, 0))
    config = TrainConfig(images="100", precision="fp32", batch=32, backbone=TINY["backbone"])
    for count, expected in ((5, 5), (40, 32)):
        make_plan(config, SHAPE, count)
        assert sizes.pop() == expected


def test_references_are_a_part_of_a_step():
    config, network = TrainConfig(objective="simple"), registry.backbone.get(TINY["backbone"])(1)
    compared = []
    loss = loss_of_zeros(config, SHAPE, lambda batch: compared.append(len(batch.x0)) or batch, network, 8)
    assert compared == [8]
    assert loss == squares(SHAPE, network, 8)


def test_what_the_trial_of_a_wider_network_took_is_planned_too(monkeypatch):
    told(monkeypatch, lambda width: ENOUGH * (8 / width) ** 3, peak=700)
    monkeypatch.setattr("unnoise.training.plan.peak_memory", lambda: 900)
    assert make_plan(TrainConfig(precision="fp32", budget="8s"), SHAPE, ENOUGH).plan.peak_bytes == 900


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a processor")
def test_the_memory_of_a_container_is_what_it_may_take(tmp_path, monkeypatch):
    free = free_memory()
    monkeypatch.setattr("unnoise.device.CGROUP", tmp_path)
    assert free_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)  # no container
    for limit, expected in (("max", free), (str(300 * 2**20), 120 * 2**20)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{200 * 2**20}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {20 * 2**20}\n")
        assert free_memory() == pytest.approx(expected, rel=0.2)
