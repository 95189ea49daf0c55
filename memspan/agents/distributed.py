"""Several processes that learn as one: each has a share of the environments, all have the same policy.

N environments in all, W processes: process r has rows r N / W up to (r + 1) N / W. What comes out is what one
process with all N would have got, up to the rounding of sums:

- environments are seeded by their row among all N;
- each process draws the actions of all N and takes its own, from random numbers that are the same everywhere;
- minibatches are sets of the N rows; each process has the part that it holds, maybe none;
- a mean over rows counts each process by its rows: gradients, losses, averages of `memspan.memory.spread`;
- what a rollout tells (episodes, effective memory, advantages' deviation) is put together at its end.

Failing. A rollout is each process's own, and so are its faults; at its end all tell how it went, and if one
has failed or was asked to stop, all stop at the same place (`Processes.together`). A process that is gone,
or says nothing for `timeout` seconds, raises `LostProcessError` in all others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from memspan.agents.faults import BadNumbersError, EnvironmentFaultError
from memspan.memory.spread import averaging

TIMEOUT, LONGEST_TIMEOUT = 600.0, 1e8
Result = TypeVar("Result")


class LostProcessError(RuntimeError):
    """A process of a run has ended or does not answer."""


class FailedProcessError(RuntimeError):
    """Another process of a run has failed, and said how."""


_KINDS: dict[str, type[BaseException]] = {
    one.__name__: one
    for one in (
        BadNumbersError,
        EnvironmentFaultError,
        LostProcessError,
        KeyboardInterrupt,
        OSError,
        ValueError,
    )
}
"""What others raise as what it was."""


class Processes:
    """The processes of a run, seen from one of them. Made without arguments, there is only this one.

    Args:
        rank: r, which one this is.
        size: W, how many there are.
        timeout: seconds that it waits for the others.
    """

    def __init__(self, rank: int = 0, size: int = 1, timeout: float = TIMEOUT) -> None:
        self.rank = rank
        self.size = size
        self.timeout = timeout
        self.lost = False
        self.stopped_together = size == 1
        """Whether all processes know that they stop, and have stopped at the same place."""

    @property
    def is_first(self) -> bool:
        """Whether this one writes what there is to be written once."""
        return self.rank == 0

    def rows(self, n_own: int) -> range:
        """This process's rows among those of all, each of which has `n_own`."""
        return range(self.rank * n_own, (self.rank + 1) * n_own)

    def others(self, n_own: int) -> tuple[int, int]:
        """How many rows there are before and behind this process's own."""
        return self.rank * n_own, (self.size - self.rank - 1) * n_own

    # Telling each other

    def exchange(self, value: Any = None, failure: BaseException | None = None) -> list[Any]:
        """What every process tells, in order. To be called by all, at the same place.

        Raises:
            Whatever the first process raised that failed, with its number before what it says.
        """
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        message = None if failure is None else (_kind(failure), _text(failure))
        self._call(lambda: dist.all_gather_object(told, (message, value)))
        for rank, (said, _) in enumerate(told):
            if said is not None:
                self.stopped_together = True
                if failure is None:
                    kind, text = said
                    raise _KINDS.get(kind, FailedProcessError)(f"process {rank} of {self.size}: {text}")
        return [one for _, one in told]

    @contextmanager
    def together(self) -> Iterator[None]:
        """All processes get through the block, or none: what one raises, all raise.

        Whoever is done waits for the others. Within the block there may be an `exchange`, but no other
        communication.
        """
        if self.size == 1:
            yield
            return
        self.stopped_together = False
        try:
            yield
        except BaseException as error:
            if not self.stopped_together and not isinstance(error, LostProcessError):
                try:
                    self.exchange(failure=error)
                except LostProcessError as lost:
                    # torchrun asks to stop when a process is gone, and that is what there is to tell.
                    if isinstance(error, KeyboardInterrupt):
                        raise lost from None
            raise
        self.exchange()

    def shared(self, error: BadNumbersError) -> BadNumbersError:
        """An error that all processes have come to at the same place, with what each says."""
        if self.size == 1:
            return error
        said = self.exchange(str(error))
        self.stopped_together = True
        lines = [f"process {rank} of {self.size}: {text}" for rank, text in enumerate(said)]
        return BadNumbersError("; ".join(lines) if len(set(said)) > 1 else said[0])

    def to_first(self, value: Any) -> list[Any] | None:
        """What every process tells, in order, in the first process; None in the others."""
        if self.size == 1:
            return [value]
        self.exchange()
        told = [None] * self.size if self.is_first else None
        self._call(lambda: dist.gather_object(value, told))
        return told

    # Numbers

    def sum(self, numbers: Iterable[float]) -> list[float]:
        """Sums over the processes."""
        sums = torch.tensor(list(numbers), dtype=torch.float64)
        if self.size > 1 and len(sums):
            self._call(lambda: dist.all_reduce(sums))
        return sums.tolist()

    def from_first(self, tensors: Iterable[Tensor]) -> None:
        """Gives tensors the values that they have in the first process."""
        if self.size > 1:
            for tensor in tensors:
                self._call(lambda one=tensor: dist.broadcast(one, 0))  # type: ignore[misc]

    @contextmanager
    def averaging(self, weight: float) -> Iterator[None]:
        """Has means over rows (`memspan.memory.spread`) be those of all, this process's with `weight`."""
        if self.size == 1:
            yield
            return

        def average(mean: Tensor) -> Tensor:
            total = mean * weight if weight else torch.zeros_like(mean)
            self._call(lambda: dist.all_reduce(total))
            return total

        with averaging(average):
            yield

    def backward(self, loss: Tensor, weight: float, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Gradients of the mean loss over the rows of all processes, of which this one's are `weight`.

        A parameter has a gradient where it has one in any process.

        Returns:
            The loss over all.
        """
        if self.size == 1:
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()
        learning = [one for one in parameters if one.requires_grad]
        if weight:
            (loss * weight).backward()  # type: ignore[no-untyped-call]
        total = loss.detach() * weight if weight else torch.zeros_like(loss)
        there = loss.new_tensor([one.grad is not None for one in learning], dtype=total.dtype)
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in learning]
        # One message: the loss, which parameters have a gradient, the gradients.
        flat = torch.cat([total.reshape(1), there, *(one.flatten() for one in grads)])
        self._call(lambda: dist.all_reduce(flat))
        sizes = [1, len(learning), *(one.numel() for one in learning)]
        total, there, *summed = torch.split(flat, sizes)
        for parameter, has_one, grad in zip(learning, there.tolist(), summed, strict=True):
            parameter.grad = grad.view_as(parameter) if has_one else None
        return total[0]

    def _call(self, communicate: Callable[[], Result]) -> Result:
        try:
            return communicate()
        except RuntimeError as error:
            self.lost = True
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise LostProcessError(
                f"process {self.rank} of {self.size}: another process has ended, or has not answered for "
                f"{self.timeout:g} s ({reason})"
            ) from None


ALONE = Processes()


@contextmanager
def joined(device: str = "auto", timeout: float = TIMEOUT) -> Iterator[Processes]:
    """The processes that torchrun, or whoever sets the same variables, has started; left at the end.

    Args:
        device: where to compute: "auto", "cpu" or "cuda", which is then a GPU for each process.
        timeout: seconds that one waits for the others.

    Raises:
        ValueError: a variable is missing, the timeout is not allowed, or there are not enough GPUs.
        LostProcessError: not all of them have come.
    """
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise ValueError(f"process_timeout={timeout!r}: must be above 0 and at most {LONGEST_TIMEOUT:.0f}")
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Processes()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ValueError(f"WORLD_SIZE={size}: {' and '.join(missing)} must be set, too, as torchrun does")
    processes = Processes(int(os.environ["RANK"]), size, timeout)
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        _take_gpu()
    elif device not in ("auto", "cpu"):
        raise ValueError(f"device={device!r}: must be auto, cpu or cuda with {size} processes")
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    processes._call(lambda: dist.init_process_group(backend, timeout=timedelta(seconds=timeout)))
    try:
        yield processes
    finally:
        # With a process that is gone, it might wait for it.
        if not processes.lost:
            dist.destroy_process_group()


_ON_THIS_MACHINE = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def _take_gpu() -> None:
    """Makes this process's GPU the current one."""
    local, needed = (int(os.environ.get(name, default)) for name, default in _ON_THIS_MACHINE.items())
    there = torch.cuda.device_count()
    if max(local + 1, needed) > there:
        raise ValueError(f"device: must be cpu, for there are {there} GPUs here for {needed} processes")
    torch.cuda.set_device(local)


def _kind(error: BaseException) -> str:
    return next((one.__name__ for one in type(error).__mro__ if one.__name__ in _KINDS), type(error).__name__)


def _text(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if _kind(error) in _KINDS else f"{type(error).__name__}: {said}"
