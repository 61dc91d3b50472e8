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


def count() -> int:
    return int(state().num_processes)


def first() -> bool:
    """Whether this is the one that writes and tells."""
    return bool(state().is_main_process)


def rank() -> int:
    return int(state().process_index)


def share(n: int) -> slice:
    """The rows of n that are this process's; none where there are fewer rows than processes."""
    return slice(rank() * n // count(), (rank() + 1) * n // count())


def summed(x: Tensor) -> Tensor:
    """Over all processes."""
    if count() == 1:
        return x
    distributed.all_reduce(total := x.to(state().device, copy=True))
    return total


def largest(*values: float) -> list[float]:
    """Of each value, over all processes."""
    if count() == 1:
        return [*values]
    distributed.all_reduce(
        most := torch.tensor(values, dtype=torch.float64, device=state().device), distributed.ReduceOp.MAX
    )
    return [float(value) for value in most]


def of_first(work: Callable[[], T]) -> T:
    """What `work` returns in the first process; what it refuses is refused in all, and told by the first."""
    if count() == 1:
        return work()
    said: list[Any] = [None, None]
    error = None
    if first():
        try:
            said[0] = work()
        except InputError as refused:
            error, said[1] = refused, str(refused)
    distributed.broadcast_object_list(said)
    if said[1] is not None:
        raise error or ToldElsewhereError(said[1])
    return said[0]  # type: ignore[no-any-return]


def gathered(value: T) -> list[T]:
    """That of each process."""
    found: list[Any] = [value] * count()
    if count() > 1:
        distributed.all_gather_object(found, value)
    return found


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process cannot be reached."""
    return count() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error))


def wait() -> None:
    """Until all are here."""
    state().wait_for_everyone()
