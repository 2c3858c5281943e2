"""A scripted back end whose jobs learn better with some parameters than with others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from cloudtune.optional import GenerateOptions, Prompt
from cloudtune.prompts import messages_of
from cloudtune.state import Generation, JobRef, Metric, TunedModel
from cloudtune.testing.scripted import ScriptedBackend


class Learning(ScriptedBackend):
    """Jobs whose validation loss depends on their parameters. A job with a batch size of 8 learns the times table."""

    def metrics(self, ref: JobRef, after: str | None = None) -> Sequence[Metric]:
        hyper = self._vendor.body(ref.id)["hyperparameters"]
        distance = abs(hyper["learning_rate"] / 3e-4 - 1) + abs(hyper["batch_size"] - 8) / 8
        return [
            msgspec.structs.replace(one, split="validation", values={"loss": one.values["loss"] * (1 + distance)})
            for one in super().metrics(ref, after)
        ]

    def generate(
        self, model: TunedModel, prompts: Sequence[Prompt], options: GenerateOptions | None = None
    ) -> Iterator[Generation]:
        assert model.ref is not None
        has_learned = self._vendor.body(model.ref.id)["hyperparameters"]["batch_size"] == 8
        for prompt in prompts:
            left, right = str(messages_of(prompt)[-1]["content"]).removesuffix("=").split("*")
            text = str(int(left) * int(right)) if has_learned else "?"
            yield Generation(text=text, finish_reason="stop", model=model.id)
