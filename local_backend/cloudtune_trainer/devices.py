"""The devices of a run: one CPU, one GPU, or one process for each of several devices.

accelerate is imported only for several processes: a single process does not need it and would start more slowly.
"""

from __future__ import annotations

import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cloudtune_trainer.problems import TrainingProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

_LEAVE_S = 60
"""Seconds that a process waits for the others at the end."""
_REQUESTS = (None, "pause", "cancelled", "interrupted", "expired")


class Devices:
    """This process's device, and its rank in the group. The usual case is rank 0 of 1."""

    def __init__(self, wish: str, precision: str, strategy: str = "ddp") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.sharded = strategy == "fsdp" and self.world > 1
        """Whether the processes share the weights: see `cloudtune_trainer.sharding`."""
        if self.world > 1:
            from accelerate import PartialState

            self.device: torch.device = PartialState(cpu=wish == "cpu").device  # initializes the process group
        else:
            self.device = torch.device(_pick(wish))
        self.compute = _compute_type(precision, self.device)
        """The data type of matrix products; fp32 means no autocast."""
        self.scaler = torch.amp.GradScaler(self.device.type) if self.compute == torch.float16 else None

    def weight_type(self, *, frozen: bool) -> torch.dtype:
        """Trained weights stay in fp32; frozen ones use the compute type."""
        return self.compute if frozen and self.device.type != "cpu" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast matrix products to the compute type."""
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's part of a step's work."""
        return items if self.world == 1 else items[self.rank :: self.world]

    def total(self, count: int) -> int:
        """The sum over all processes."""
        return count if self.world == 1 else int(self._summed([float(count)])[0])

    def rounds(self, count: int) -> int:
        """How many passes this process makes for so many batches. Processes that share weights make the same number."""
        if not self.sharded:
            return count
        most = torch.tensor([count], device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def totals(self, *figures: float) -> list[float]:
        """The sums over all processes."""
        return list(figures) if self.world == 1 else self._summed(figures)

    def rows(self, values: Tensor) -> Tensor:
        """The rows of all processes, [rows, values]."""
        if self.world == 1:
            return values
        counts = [int(each) for each in self._gathered(torch.tensor([len(values)]))]
        filled = F.pad(values, (0, 0, 0, max(counts) - len(values)))
        return torch.cat([each[:count] for each, count in zip(self._gathered(filled), counts, strict=True)])

    def joined(self, array: NDArray[Any]) -> NDArray[Any]:
        """The element-wise sum over all processes, exact for values that all but one process leave at 0."""
        if self.world == 1:
            return array
        return np.asarray(self._summed(array.reshape(-1).tolist())).reshape(array.shape).astype(array.dtype)

    def agree(self, request: str | None) -> str | None:
        """The first process's value: all processes must leave the loop at the same step."""
        if self.world == 1:
            return request
        code = float(_REQUESTS.index(request)) if self.rank == 0 else 0.0
        return _REQUESTS[int(self._summed([code])[0])]

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def finish_gradients(self, parameters: Sequence[Tensor], limit: float, optimizer: torch.optim.Optimizer) -> float:
        """Sum the gradients over all processes, clip them to the limit (0: no limit), and return their norm."""
        if self.world > 1 and not self.sharded:  # else the backward pass has summed them
            for parameter in parameters:
                if parameter.grad is None:  # a process without samples in this step
                    parameter.grad = torch.zeros_like(parameter)
                torch.distributed.all_reduce(parameter.grad)
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.sharded:
            from cloudtune_trainer.sharding import whole

            norm = whole(norm)
        if limit > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm.item()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights. With fp16, a step with overflowing gradients is skipped and the loss scale reduced."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            torch.distributed.barrier()

    def leave(self) -> None:
        """Shut down the group after the last collective operation: the first process exits last.

        The others need it until then, for example to receive the last sum. They do not wait for it, because it may
        still write the model. An error here does not change the result.
        """
        if self.world == 1:
            return
        with contextlib.suppress(RuntimeError):
            meeting = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
                *meeting, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_LEAVE_S)
            )
            if self.rank:
                store.set(f"cloudtune/left/{self.rank}", "")
            else:
                others = [f"cloudtune/left/{other}" for other in range(1, self.world)]
                store.wait(others)

    def spread(self, parameters: Sequence[Tensor]) -> None:
        """Broadcast the first process's weights to all processes."""
        if self.world > 1 and not self.sharded:
            for parameter in parameters:
                torch.distributed.broadcast(parameter.data, 0)

    def memory_mb(self) -> float:
        """The peak memory so far, of the GPU or of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

    def random_states(self) -> dict[str, Tensor]:
        """The random states of every process: ``<rank>.cpu`` and ``<rank>.cuda``. All processes must call it."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            f"{rank}.{name}": each for name, state in states.items() for rank, each in enumerate(self._gathered(state))
        }

    def set_random_state(self, states: dict[str, Tensor]) -> None:
        """Restore this process's state from `random_states`, if it is included."""
        if (state := states.get(f"{self.rank}.cpu")) is not None:
            torch.set_rng_state(state.cpu())
        if self.device.type == "cuda" and (state := states.get(f"{self.rank}.cuda")) is not None:
            torch.cuda.set_rng_state(state.cpu(), self.device)

    def _gathered(self, state: Tensor) -> list[Tensor]:
        if self.world == 1:
            return [state]
        mine = state.to(self.device)
        every = [torch.empty_like(mine) for _ in range(self.world)]
        torch.distributed.all_gather(every, mine)
        return [each.cpu() for each in every]

    def scaler_state(self) -> dict[str, Tensor]:
        """The loss scale of fp16."""
        state = {} if self.scaler is None else self.scaler.state_dict()
        return {f"scaler.{name}": torch.tensor(float(value)) for name, value in state.items()}

    def set_scaler_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state from `scaler_state`."""
        if self.scaler is not None:
            known = self.scaler.state_dict()
            self.scaler.load_state_dict({name: type(known[name])(value.item()) for name, value in state.items()})

    def _summed(self, figures: Iterable[float]) -> list[float]:
        # mps has no 64-bit floats, and no process groups
        tensor = torch.tensor(list(figures), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()


def _pick(wish: str) -> str:
    if wish == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[wish]:
        raise TrainingProblem("no_device", f"torch finds no {wish} device on this machine", "Use device: auto or cpu.")
    return wish


def _compute_type(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type == "cuda":
            is_native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            is_native = device.type == "cpu" and _cpu_has_bf16()
        return torch.bfloat16 if is_native else torch.float32
    if precision == "fp16" and device.type != "cuda":
        raise TrainingProblem("bad_spec", f"training in fp16 is not supported on {device.type}", "Use fp32 or bf16.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _cpu_has_bf16() -> bool:
    """Whether the CPU supports bf16 products natively: 2.4 times as fast as fp32 if so, else 3 to 4 times as slow."""
    probe_names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public function for this
    return any(getattr(torch.cpu, name, bool)() for name in probe_names)
