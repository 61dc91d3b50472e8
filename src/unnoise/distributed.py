"""The processes that work on one thing together: what each does of it, and what all agree on.

PyTorch's own engine through Accelerate: started by `accelerate launch -m unnoise ...` or `torchrun -m unnoise ...`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

from unnoise.errors import InputError, ToldElsewhereError

T = TypeVar("T")


def state() -> Any:
    return PartialState(cpu=not torch.accelerator.is_available())


def world_size() -> int:
    return int(state().num_processes)


def is_main() -> bool:
    """Whether this is the one that writes and tells."""
    return bool(state().is_main_process)


def rank() -> int:
    return int(state().process_index)


def shard(n: int) -> slice:
    """The rows of n that are this process's; none where there are fewer rows than processes."""
    return slice(rank() * n // world_size(), (rank() + 1) * n // world_size())


def all_reduce_sum(x: Tensor) -> Tensor:
    """Over all processes."""
    if world_size() == 1:
        return x
    distributed.all_reduce(total := x.to(state().device, copy=True))
    return total


def all_reduce_max(*values: float) -> list[float]:
    """Of each value, over all processes."""
    if world_size() == 1:
        return [*values]
    distributed.all_reduce(
        most := torch.tensor(values, dtype=torch.float64, device=state().device), distributed.ReduceOp.MAX
    )
    return [float(value) for value in most]


def from_main(work: Callable[[], T]) -> T:
    """What `work` returns in the first process; what it refuses is refused in all, and told by the first."""
    if world_size() == 1:
        return work()
    said: list[Any] = [None, None]
    error = None
    if is_main():
        try:
            said[0] = work()
        except InputError as refused:
            error, said[1] = refused, str(refused)
    distributed.broadcast_object_list(said)
    if said[1] is not None:
        raise error or ToldElsewhereError(said[1])
    return said[0]  # type: ignore[no-any-return]


def all_gather(value: T) -> list[T]:
    """That of each process."""
    found: list[Any] = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(found, value)
    return found


def lost_peer(error: RuntimeError) -> bool:
    """Whether it says that another process cannot be reached."""
    return world_size() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def barrier() -> None:
    """Until all are here."""
    state().wait_for_everyone()
