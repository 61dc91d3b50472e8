"""Work shared by several processes: who does which part, and what all of them agree on.

PyTorch's own engine. Start the processes by `torchrun -m unnoise ...` or `accelerate launch -m unnoise ...`.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from unnoise.device import pick_device
from unnoise.errors import InputError, ToldElsewhereError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # while one process decodes the data, the others wait
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  # engines of `accelerate launch` that split the weights


def join() -> bool:
    """Return True if this process is one of several; the first call meets the others."""
    if not distributed.is_available() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return False
    if not distributed.is_initialized():
        refuse_sharding()
        end_with_launcher()
        if (device := pick_device()).type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return True


def refuse_sharding() -> None:
    """Raise InputError if the launcher asks for an engine that splits the weights over processes."""
    for engine in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true":
            raise InputError(
                f"each process of a training holds all weights (DDP); start the processes without {engine}"
            )


def end_with_launcher() -> None:
    """Ask Linux for a SIGTERM when the launcher dies, so that no process of a killed `torchrun` trains on alone."""
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if join() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return distributed.get_rank() if join() else 0


def is_main() -> bool:
    """Return True in the process that writes files and prints."""
    return rank() == 0


def shard(n: int) -> slice:
    """Return the rows of n that belong to this process; the slice is empty if there are fewer rows than processes."""
    return slice(rank() * n // world_size(), (rank() + 1) * n // world_size())


def all_reduce_sum(x: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes (all-reduce)."""
    if world_size() == 1:
        return x
    distributed.all_reduce(total := x.to(pick_device(), copy=True))
    return total


def all_reduce_max(*values: float) -> list[float]:
    """Return the maximum of each value over all processes (all-reduce)."""
    if world_size() == 1:
        return [*values]
    most = torch.tensor(values, dtype=torch.float64, device=pick_device())
    distributed.all_reduce(most, distributed.ReduceOp.MAX)
    return [float(value) for value in most]


def from_main(work: Callable[[], T]) -> T:
    """Return in all processes what `work` returns in the main process (broadcast).

    Raises:
        InputError: in all processes, if `work` raises one in the main process, which alone prints it.
    """
    if world_size() == 1:
        return work()
    message: list[Any] = [None, None, 2]  # result, text of the error, its exit status
    error = None
    if is_main():
        try:
            message[0] = work()
        except InputError as refused:
            error, message[1:] = refused, [str(refused), refused.status]
    distributed.broadcast_object_list(message)
    if message[1] is not None:
        raise error or ToldElsewhereError(message[1], message[2])
    return message[0]  # type: ignore[no-any-return]


def all_gather(value: T) -> list[T]:
    """Return the value of each process, in the order of their ranks."""
    values: list[Any] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(values, value)
    return values


@contextmanager
def main_first() -> Iterator[None]:
    """Let one process of each machine do the work first; the others follow, and find its results in the cache."""
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def lost_peer(error: RuntimeError) -> bool:
    """Return True if an error says that another process cannot be reached."""
    return world_size() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def barrier() -> None:
    """Wait until every process gets here."""
    if join():
        distributed.barrier()
