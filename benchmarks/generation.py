"""Local answers per second: cloudtune over a plain loop of transformers' ``generate``, in one run, with equal answers.

``python benchmarks/generation.py [PROMPTS] [ROUNDS]`` (default 500 and 1). The prompts are short, of 3 to 30 words, in a
chat with one system prompt. The model is a small Llama with random weights on the CPU. Both sides alternate, chunk by
chunk, so that a load on the machine changes both alike.
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
WORDS = "the order delivery refund invoice late broken parcel please when where how return open account email".split()
SYSTEM = (
    "You answer questions of customers about orders, deliveries, invoices and refunds, politely and in one sentence."
)
SHAPE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6,
         "num_key_value_heads": 6, "initializer_range": 0.1}  # fmt: skip


def conversations(count: int) -> list[list[dict[str, str]]]:
    """Different prompts of different lengths."""
    chance = random.Random(1)
    return [
        [{"role": "system", "content": SYSTEM},
         {"role": "user", "content": f"{number} {' '.join(chance.choices(WORDS, k=chance.randint(3, 30)))}?"}]
        for number in range(count)
    ]  # fmt: skip


def plain(network: Any, tokenizer: Any, prompts: list[list[dict[str, str]]]) -> list[str]:
    """The loop that a person writes first."""
    found = []
    for prompt in prompts:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.inference_mode():
            out = network.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)
        found.append(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return found


def main() -> None:
    count, rounds = (int(given) for given in (*sys.argv[1:], "500", "1")[:2]) if len(sys.argv) != 2 else (
        int(sys.argv[1]), 1)  # fmt: skip
    logging.set_verbosity_error()
    prompts = conversations(count)
    with tempfile.TemporaryDirectory() as folder:
        path = write_tiny_model(Path(folder) / "model", vocab_texts=[SYSTEM, *WORDS], model=SHAPE)
        network = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = Model(network, tokenizer)
        _ = model.can_batch, list(model.generate(prompts[:2], max_tokens=2)), plain(network, tokenizer, prompts[:1])
        for _ in range(rounds):
            seconds, answers = [0.0, 0.0], [list[str](), list[str]()]
            for first in range(0, count, CHUNK):
                some = prompts[first : first + CHUNK]
                started = time.perf_counter()
                answers[0] += plain(network, tokenizer, some)
                middle = time.perf_counter()
                answers[1] += [one.text for one in model.generate(some, max_tokens=MAX_TOKENS)]
                seconds[0] += middle - started
                seconds[1] += time.perf_counter() - middle
            equal = sum(a == b for a, b in zip(*answers, strict=True))
            rates = [count / taken for taken in seconds]
            print(f"plain {rates[0]:.1f}, cloudtune {rates[1]:.1f} answers per second: {rates[1] / rates[0]:.2f} times; "
                  f"{equal} of {count} answers equal")  # fmt: skip


if __name__ == "__main__":
    main()
