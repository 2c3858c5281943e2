"""Local answers per second: cloudtune over a plain loop of transformers' ``generate``, in one run, with equal answers.

``python benchmarks/generation.py [PROMPTS]`` (default 500). The prompts are short, in a chat with one system prompt.
The model is a small Llama with random weights on the CPU. Both sides alternate, chunk by chunk, so that a load on the
machine changes both alike.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from cloudtune_trainer.generate import Model
from cloudtune_trainer.tiny import write_tiny_model

CHUNK = 125
MAX_TOKENS = 24
SYSTEM = "You answer questions of customers about an order, a delivery or a refund, politely and in one sentence."
SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "initializer_range": 0.1}


def conversations(count: int) -> list[list[dict[str, str]]]:
    """Different prompts of 3 to 30 words."""
    chance, words = random.Random(1), SYSTEM.split()
    return [
        [{"role": "system", "content": SYSTEM},
         {"role": "user", "content": f"{number} {' '.join(chance.choices(words, k=chance.randint(3, 30)))}?"}]
        for number in range(count)
    ]  # fmt: skip


def plain(network: Any, tokenizer: Any, prompts: list[list[dict[str, str]]]) -> list[str]:
    """One prompt after another."""
    found = []
    for prompt in prompts:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            out = network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        found.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    logging.set_verbosity_error()
    prompts = conversations(count)
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_model(Path(folder) / "model", vocab_texts=[SYSTEM], model=SHAPE)
        network, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
        model = Model(network, tokenizer)
        plain(network, tokenizer, prompts[:1]), list(model.generate(prompts[:2], max_tokens=2))  # warm up
        seconds, equal = [0.0, 0.0], 0
        for first in range(0, count, CHUNK):
            some = prompts[first : first + CHUNK]
            started = time.perf_counter()
            one = plain(network, tokenizer, some)
            middle = time.perf_counter()
            other = [answer.text for answer in model.generate(some, max_tokens=MAX_TOKENS)]
            seconds = [seconds[0] + middle - started, seconds[1] + time.perf_counter() - middle]
            equal += sum(a == b for a, b in zip(one, other, strict=True))
    rates = [count / taken for taken in seconds]
    print(f"plain {rates[0]:.1f}, cloudtune {rates[1]:.1f} answers per second: {rates[1] / rates[0]:.2f} times; "
          f"{equal} of {count} answers are equal")  # fmt: skip
    if equal < count:
        raise SystemExit("the answers differ")


if __name__ == "__main__":
    main()
