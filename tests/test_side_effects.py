"""`train` and `sample` leave the process as they found it, and free the memory of a run that is deleted."""

import gc
import logging
import os
import signal
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

import unnoise
from tiny import TINY, smooth

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module", autouse=True)
def modules_are_loaded(tmp_path_factory):
    """Run everything once, so that no test sees what a module does when it is imported for the first time."""
    train_and_sample(tmp_path_factory.mktemp("first") / "run")


@pytest.fixture
def run_folder(tmp_path):
    return tmp_path / "run"


def train_and_sample(folder):
    run = unnoise.train(smooth(24, 8, seed=0), images="48", out=str(folder), **TINY)
    assert unnoise.sample(run, 2, steps=2).shape == (2, 3, 8, 8)
    return run


def loggers():
    every = {"root": logging.root, **logging.root.manager.loggerDict}
    return {name: logger for name, logger in every.items() if isinstance(logger, logging.Logger)}


STATES = {
    "torch's random stream": lambda: torch.get_rng_state().tolist(),
    "NumPy's random stream": lambda: str(np.random.get_state()),  # noqa: NPY002  # the global one
    "default dtype": torch.get_default_dtype,
    "default device": torch.get_default_device,
    "threads": torch.get_num_threads,
    "threads between operations": torch.get_num_interop_threads,
    "gradients": torch.is_grad_enabled,
    "autocast": lambda: torch.is_autocast_enabled("cpu"),
    "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
    "precision of products": torch.get_float32_matmul_precision,
    "benchmarks of cuDNN": lambda: torch.backends.cudnn.benchmark,
    "environment": lambda: dict(os.environ),
    "current folder": os.getcwd,
    "filters of warnings": lambda: list(warnings.filters),
    "signal handlers": lambda: {number: signal.getsignal(number) for number in signal.valid_signals()},
    "logging is disabled": lambda: logging.root.manager.disable,
    "loggers": lambda: {
        name: (logger.level, [*logger.handlers], [*logger.filters], logger.propagate, logger.disabled)
        for name, logger in loggers().items()
    },
    "print options": lambda: vars(torch._tensor_str.PRINT_OPTS).copy(),
    "NumPy's print options": np.get_printoptions,
    "NumPy's errors": np.geterr,
    "Accelerate": lambda: (dict(AcceleratorState._shared_state), dict(PartialState._shared_state)),
}


def test_the_process_is_as_it_was(run_folder):
    before = {name: state() for name, state in STATES.items()}
    train_and_sample(run_folder)
    changed = {name for name, state in STATES.items() if state() != before[name]}
    assert not changed


def test_settings_of_the_user_stay(run_folder):
    """Settings other than the defaults of a process do not stop a run, and the run does not change them."""
    before = torch.get_num_threads(), signal.getsignal(signal.SIGINT), [*warnings.filters]
    try:
        torch.set_num_threads(3)
        warnings.simplefilter("ignore", UserWarning)
        signal.signal(signal.SIGINT, lambda *_: None)
        logging.disable(logging.INFO)
        chosen = {name: state() for name, state in STATES.items()}
        train_and_sample(run_folder)
        assert not {name for name, state in STATES.items() if state() != chosen[name]}
    finally:
        logging.disable(logging.NOTSET)
        torch.set_num_threads(before[0])
        signal.signal(signal.SIGINT, before[1])
        warnings.filters[:] = before[2]


PROGRAM = """
import random, sys
import unnoise
from tiny import TINY, smooth
before = random.getstate()
unnoise.sample(unnoise.train(smooth(24, 8, seed=0), images="48", out=sys.argv[1], **TINY), 2, steps=2)
assert random.getstate() == before
"""


def test_the_random_stream_of_python_stays(run_folder):
    """A process of its own runs this, since the shape checks of these tests draw from that stream."""
    path = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, run_folder], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_random_numbers_of_the_user_do_not_change_a_run(run_folder):
    """A run depends on its own seed alone, and the user's next number does not depend on the run."""
    numbers, weights = [], []
    for seed in (5, 6):
        torch.manual_seed(seed)
        run = train_and_sample(run_folder.with_name(f"run{seed}"))
        numbers.append(float(torch.rand(())))
        weights.append([p.clone() for p in run.model.parameters()])
        torch.manual_seed(seed)
        assert numbers[-1] == float(torch.rand(()))
    assert numbers[0] != numbers[1]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.fixture
def accelerator():
    """Return an Accelerator of the user's own; Accelerate is as new afterwards."""
    environment = dict(os.environ)
    yield Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2, cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    os.environ.clear()
    os.environ.update(environment)


def accumulate(accelerator, model, optimizer):
    """Take one step in two parts, and return the weights after each part and the type of the products."""
    seen = []
    for _ in range(2):
        with accelerator.accumulate(model):
            with accelerator.autocast():
                output = model(torch.ones(4, 2))
            accelerator.backward(output.float().square().mean())
            optimizer.step()
            optimizer.zero_grad()
        seen.append((model.weight.detach().clone(), torch.get_autocast_dtype("cpu"), output.dtype))
    return seen


def test_the_accelerator_of_the_user_still_works(accelerator, run_folder):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    start = model.weight.detach().clone()
    shared = dict(AcceleratorState._shared_state), dict(PartialState._shared_state), dict(GradientState._shared_state)
    train_and_sample(run_folder)
    after = dict(AcceleratorState._shared_state), dict(PartialState._shared_state), dict(GradientState._shared_state)
    assert after == shared
    assert accelerator.mixed_precision == accelerator.state.mixed_precision == "bf16"
    assert accelerator.gradient_accumulation_steps == 2
    (first, *_), (second, _, output) = accumulate(accelerator, model, optimizer)
    assert torch.equal(first, start), "the first part only accumulates"
    assert not torch.equal(second, start)
    assert output in (torch.bfloat16, torch.float32)  # Accelerate gives float32 back
    with accelerator.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.bfloat16


def test_a_run_that_is_deleted_frees_its_memory(run_folder):
    run = train_and_sample(run_folder)
    alive = [weakref.ref(run.model), *(weakref.ref(p) for p in run.model.parameters())]
    opened = unnoise.load(run)
    unnoise.sample(opened, 2, steps=2)
    unnoise.sample(str(run_folder), 2, steps=2)
    alive += [weakref.ref(opened.model), *(weakref.ref(p) for p in opened.model.parameters())]
    assert all(each() is not None for each in alive)
    del run, opened
    gc.collect()
    assert not [each() for each in alive if each() is not None]


def test_nothing_of_a_training_stays_in_memory(run_folder):
    """The images, the averages and the state of the optimizer are freed with the run."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    before = tensors()
    run = train_and_sample(run_folder)
    del run
    assert tensors() <= before
