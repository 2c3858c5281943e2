"""What is checked of each family: training, layouts, answers, merging, export and resume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from cloudtune_trainer.causality import check_causal
from cloudtune_trainer.checkpoints import newest_good
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import RunFolder
from cloudtune_trainer.generate import Model
from cloudtune_trainer.models import BaseModel, load_model, load_tokenizer
from cloudtune_trainer.packing import enable_packed_attention
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import DataFiles, Hyperparameters, ModelSource, RunSpec
from cloudtune_trainer.tasks.causal_lm import CausalLM

from .conftest import events, metrics, same_bits, sums, weights

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Runs

ROWS = sums(5)
QUESTIONS = ["Hi", "What is 3 plus 4? And a longer question.", "Why?"]
PASSED = "yes"
REASON = "reason"
"""Why the trainer refuses the whole family."""


class Family:
    """A tiny model of one family and the runs over it. Each check returns `PASSED`, or why the trainer declines."""

    def __init__(self, base: Path, runs: Runs) -> None:
        self.base = base
        self.runs = runs
        self._trained: dict[str, RunFolder] = {}

    def check(self) -> dict[str, str]:
        """Check -> its result."""
        try:
            check_causal(self._network())
        except TrainingProblem as problem:
            return {REASON: problem.message}
        return {name: check(self) for name, check in CHECKS.items()}

    def _network(self) -> Any:
        return load_model(BaseModel(str(self.base)), dtype=torch.float32, dropout=None).eval()

    def equals_transformers(self) -> str:
        """Loss and gradients of a padded batch are those of each row alone in plain transformers."""
        from transformers import AutoModelForCausalLM

        task, samples = self._samples()
        plain = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32).eval()
        loss, gradients = _one_by_one(plain, samples)
        _check_equal(loss, gradients, self._network(), task, samples)
        return PASSED

    def packed(self) -> str:
        """Loss and gradients of packed rows are those of each row alone, else rows are padded."""
        network = self._network()
        if enable_packed_attention(network, 96) is not None:
            return "padded"
        task, samples = self._samples()
        task.packed = True
        _check_equal(*_one_by_one(self._network(), samples), network, task, samples)
        return PASSED

    def trains(self, adapter: str) -> str:
        """The trainer lowers the loss."""
        run = self._run(adapter)
        losses = [line["values"]["loss"] for line in metrics(run)]
        assert losses[-1] < losses[0], losses
        return PASSED

    def batched(self) -> str:
        """Several questions are answered together as one by one."""
        model = Model.open(self._run("full").model, device="cpu")
        together = list(model.generate(QUESTIONS, max_tokens=6))
        assert together == [next(model.generate([question], max_tokens=6)) for question in QUESTIONS]
        return PASSED if model.can_batch else "one by one"

    def merged(self) -> str:
        """The merged model has the logits of the adapter, in plain transformers."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        model = self._run("lora").model
        to = self.base.with_name("merged")
        shutil.rmtree(to, ignore_errors=True)
        try:
            export(model, to, merged=True)
        except TrainingProblem as problem:
            return f"refused: {problem.message}"
        plain = AutoModelForCausalLM.from_pretrained(to, dtype=torch.float32)
        base = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(base, model)
        torch.testing.assert_close(_logits(plain), _logits(adapted), rtol=1e-3, atol=1e-4)
        return PASSED

    def exported(self) -> str:
        """The exported model has the logits that the trainer's own model has, in plain transformers."""
        from transformers import AutoModelForCausalLM

        model = self._run("full").model
        plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        own = load_model(BaseModel(str(model)), dtype=torch.float32)
        embedding = plain.get_input_embeddings()
        if embedding.padding_idx is not None and not embedding.weight[embedding.padding_idx].any():
            # transformers clears the stored row when it loads a Youtu model
            embedding.weight.data[embedding.padding_idx] = own.get_input_embeddings().weight[embedding.padding_idx]
        torch.testing.assert_close(_logits(plain), _logits(own))
        assert not torch.allclose(_logits(plain), _logits(self._network()))
        return PASSED

    def resumes(self) -> str:
        """An interrupted run ends with the weights of an unbroken one."""
        broken = self.runs.make("broken", **self._spec("full"))
        self.runs.train(broken, stop_after=2)
        self.runs.train(broken)
        assert any(event["message"].startswith("resuming from step 2") for event in events(broken, "message"))
        ends = [newest_good(run.checkpoints) for run in (self._run("full"), broken)]
        first, second = (weights(end.weights) for end in ends if end is not None)
        assert same_bits(first, second)
        return PASSED

    def _run(self, adapter: str) -> RunFolder:
        if adapter not in self._trained:
            run = self.runs.make(adapter, **self._spec(adapter))
            assert self.runs.train(run) == "succeeded"
            self._trained[adapter] = run
        return self._trained[adapter]

    def _spec(self, adapter: str) -> dict[str, Any]:
        hyper = {"max_steps": 4, "batch_size": 5, "learning_rate": 1e-2 if adapter == "lora" else 2e-3}
        return {
            "rows": ROWS, "model": {"source": "folder", "path": str(self.base)}, "adapter": {"type": adapter},
            "hyperparameters": hyper, "checkpoints": {"every": 1000},
        }  # fmt: skip

    def _samples(self) -> tuple[CausalLM, Any]:
        spec = RunSpec(
            version=2, model=ModelSource(source="folder", path=str(self.base)), data=DataFiles(train="t"),
            hyperparameters=Hyperparameters(max_length=96),
        )  # fmt: skip
        task = CausalLM(spec)
        return task, task.encode(ROWS, load_tokenizer(BaseModel(str(self.base))))


CHECKS: dict[str, Callable[[Family], str]] = {
    "loss and gradients": Family.equals_transformers,
    "packed": Family.packed,
    "full": lambda family: family.trains("full"),
    "LoRA": lambda family: family.trains("lora"),
    "batched answers": Family.batched,
    "merged": Family.merged,
    "exported": Family.exported,
    "resumed": Family.resumes,
}


def _one_by_one(model: Any, samples: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The summed loss of each row alone, by the model's plain forward pass, and its gradients."""
    total = torch.zeros(())
    for begin, end in zip(samples.starts[:-1], samples.starts[1:], strict=True):
        ids = torch.from_numpy(samples.ids[begin:end].astype("int64"))
        learn = torch.from_numpy(samples.learn[begin:end])[1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        total = total + F.cross_entropy(logits[learn], ids[1:][learn], reduction="sum")
    total.backward()
    return total.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _check_equal(
    loss: torch.Tensor, gradients: dict[str, torch.Tensor], network: Any, task: CausalLM, samples: Any
) -> None:
    found = task.forward(network, task.collate(samples, list(range(len(samples)))))
    found.loss.backward()
    torch.testing.assert_close(found.loss.detach(), loss, rtol=1e-5, atol=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, parameter in network.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-5 * largest, msg=name)


def _logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(20, 40)[None]).logits
    return found
