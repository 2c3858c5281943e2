"""An exported model answers in transformers alone, in a process without cloudtune, exactly as it answers here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cloudtune_trainer.export import export
from cloudtune_trainer.generate import Model
from cloudtune_trainer.tiny import TINY_LLAMA

from .conftest import Runs
from .tokenizer_kinds import tokenizer_of

LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CASES: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "chatml": ("byte-level BPE", CHATML, ()),
    "llama 3": ("byte-level BPE", LLAMA_3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "gemma": ("sentencepiece BPE, no space before", GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    "mistral": ("sentencepiece BPE of Llama 2", MISTRAL, ("[INST]", "[/INST]")),
    "phi": ("sentencepiece BPE, space after each special token", PHI, ("<|user|>", "<|assistant|>", "<|end|>")),
    "plain": ("unigram", None, ()),
    "plain WordPiece": ("WordPiece", None, ()),
}
OTHER = {
    "do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "no_repeat_ngram_size": 2, "num_beams": 3,
    "min_length": 60, "forced_eos_token_id": 7, "suppress_tokens": [40, 41], "typical_p": 0.3, "min_p": 0.2,
    "return_dict_in_generate": True, "output_scores": True, "num_return_sequences": 2, "top_k": 1,
}  # fmt: skip
"""Settings as base models have them. None may change an answer."""
QUESTIONS = ["one", "two and more than two"]
ROWS = [
    {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    for question, answer in zip(QUESTIONS, ["no maybe yes", "the answer is three"], strict=True)
]
ALONE = """
import json, sys
assert not [name for name in sys.modules if name.startswith("cloudtune")]
for name in ("cloudtune", "cloudtune_trainer", "cloudtune_local", "cloudtune_providers", "cloudtune_emulator"):
    sys.modules[name] = None  # importing it fails
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline
torch.set_num_threads(1)
found = {}
for folder, base in json.loads(sys.argv[1]):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base or folder, dtype=torch.float32)
    if base:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, folder)
        model.generation_config = GenerationConfig.from_pretrained(folder)
    chats = [[{"role": "user", "content": question}] for question in json.loads(sys.argv[2])]
    options = dict(add_generation_prompt=True, return_dict=True, return_tensors="pt")
    singly = []
    for chat in chats:
        inputs = tokenizer.apply_chat_template(chat, **options)
        out = model.generate(**inputs, max_new_tokens=24)[0, inputs["input_ids"].shape[1]:]
        singly.append((tokenizer.decode(out, skip_special_tokens=True), len(out)))
    inputs = tokenizer.apply_chat_template(chats, padding=True, **options)
    rows = model.generate(**inputs, max_new_tokens=24)[:, inputs["input_ids"].shape[1]:]
    batch = tokenizer.batch_decode(rows, skip_special_tokens=True)
    piped = []
    if not base:
        pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
        piped = [pipe(chat, max_new_tokens=24)[0]["generated_text"][-1]["content"] for chat in chats]
    ends = tokenizer.eos_token_id
    found[folder] = {"singly": singly, "batch": batch, "piped": piped, "ends": ends}
print(json.dumps(found))
"""


def write_base(folder: Path, case: str) -> None:
    """A base model whose own end is ``</s>``, and that has generation settings of its own."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, template, special = CASES[case]
    tokenizer = tokenizer_of(kind, chat_template=template, starts=kind == "unigram", special=special)
    fields = {name: value for name, value in TINY_LLAMA.items() if name != "model_type"}
    config = AutoConfig.for_model("llama", **fields, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | OTHER))


def trained(runs: Runs, base: Path, name: str, adapter: dict[str, Any]) -> Path:
    """The model of a run that has learned the two answers."""
    run = runs.make(
        name, rows=ROWS, model={"source": "folder", "path": str(base)}, adapter=adapter,
        checkpoints={"every": 1000},
        hyperparameters={"max_steps": 80 if adapter["type"] == "lora" else 40, "learning_rate": 1e-2},
    )  # fmt: skip
    assert runs.train(run) == "succeeded"
    return run.model


@pytest.mark.starts_trainer
@pytest.mark.parametrize("cases", [["chatml"], pytest.param([*CASES], marks=pytest.mark.soak)])
def test_exports_answer_alone_as_they_answer_here(runs: Runs, tmp_path: Path, cases: list[str]) -> None:
    exported: dict[str, tuple[Path, Path | None]] = {}
    for case in cases:
        base = tmp_path / "bases" / case
        write_base(base, case)
        out = tmp_path / "exports" / case
        adapter: dict[str, Any] = {"type": "full"}
        if case in ("chatml", "mistral", "phi"):
            adapter = {"type": "lora", "rank": 8, "alpha": 16, "dropout": 0.0, "targets": "all-linear"}
        model = trained(runs, base, case.replace(" ", "-"), adapter)
        export(model, out)
        exported[case] = (out, base if adapter["type"] == "lora" else None)
        if adapter["type"] == "lora":
            export(model, tmp_path / "exports" / f"{case} merged", merged=True)
            exported[f"{case} merged"] = (tmp_path / "exports" / f"{case} merged", None)
    requested = [[str(folder), origin and str(origin)] for folder, origin in exported.values()]
    script = tmp_path / "alone.py"
    script.write_text(ALONE)
    command = [sys.executable, script, json.dumps(requested), json.dumps(QUESTIONS)]
    environment = {**os.environ, "PYTHON_WARM_ALL": "1"}  # transformers is imported there, cloudtune is not
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    alone = json.loads(done.stdout.splitlines()[-1])
    for case, (folder, origin) in exported.items():
        here = list(Model.open(folder, device="cpu").generate(QUESTIONS, max_tokens=24))
        texts = [answer.text for answer in here]
        found = alone[str(folder)]
        assert [answer.finish_reason for answer in here] == ["stop", "stop"], (case, texts)
        assert [text for text, _ in found["singly"]] == texts, case
        assert [length for _, length in found["singly"]] == [answer.completion_tokens + 1 for answer in here], case
        assert found["batch"] == texts, case
        if origin is None:
            assert found["piped"] == texts, case
