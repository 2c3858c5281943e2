"""Models from every source, answers of tuned ones, and their export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cloudtune_trainer import models
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import read_json
from cloudtune_trainer.generate import Model, load_tuned
from cloudtune_trainer.gguf_cache import dequantised
from cloudtune_trainer.model_folder import publish
from cloudtune_trainer.multi_adapter import MultiAdapterModel
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.run_spec import ModelSource
from cloudtune_trainer.submit.model_facts import find_model
from cloudtune_trainer.tiny import write_tiny_model
from cloudtune_trainer.tuned import read_tuned

from .conftest import Runs, events, metrics, same_bits, sums, texts, weights

QUESTIONS = ["What is 3 plus 4?", "What is 17 plus 21? And now a longer question.", "What is 9 plus 9?"]


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model as a GGUF file, written tensor by tensor."""
    import gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = model.config
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    raw = json.loads((tiny_model / "tokenizer.json").read_text())
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([3 if word.startswith("<|") else 1 for word in words])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in raw["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
    }  # fmt: skip
    for key, tensor in model.state_dict().items():
        if key.startswith("lm_head"):
            continue  # tied
        value = tensor.numpy()
        for head_name, heads in {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.items():
            if head_name in key:  # the format keeps the halves of a rotation beside one another
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        name = key
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 25)[None]).logits


def test_a_gguf_file_is_the_same_model_and_is_dequantised_once(gguf_file: Path, tiny_model: Path) -> None:
    folder = dequantised(gguf_file)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    original = models.load_model(models.BaseModel(str(tiny_model)), dtype=torch.float32)
    found = models.load_model(models.BaseModel(str(folder)), dtype=torch.float32)
    torch.testing.assert_close(logits(found), logits(original), rtol=1e-4, atol=1e-5)
    tokenizer = models.load_tokenizer(models.BaseModel(str(folder)))
    expected = models.load_tokenizer(models.BaseModel(str(tiny_model)))
    assert tokenizer("What is 3 plus 4?")["input_ids"] == expected("What is 3 plus 4?")["input_ids"]
    assert tokenizer.chat_template == expected.chat_template
    assert dequantised(gguf_file) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [p.name for p in gguf_file.parent.iterdir() if "partial" in p.name or p.suffix.isdigit()] == []


def test_training_from_a_gguf_file(runs: Runs, gguf_file: Path) -> None:
    run = runs.make(model={"source": "gguf", "path": str(gguf_file)}, hyperparameters={"max_steps": 2})
    assert runs.train(run) == "succeeded"
    assert len(list(Model.open(run.model).generate(QUESTIONS, max_tokens=3))) == 3


def test_a_gguf_base_is_known_by_its_file(runs: Runs, gguf_file: Path, tiny_model: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(gguf_file, tmp_path / "base.gguf"))
    source = {"source": "gguf", "path": str(file), "fingerprint": find_model(str(file)).weights}
    run = runs.make(model=source, hyperparameters={"max_steps": 1})
    assert runs.train(run) == "succeeded"
    config = dequantised(file) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_version": "5.0.0"}))
    Model.open(run.model)
    MultiAdapterModel(dequantised(file)).add("a", run.model)
    with pytest.raises(TrainingProblem, match=r"was trained on .*base\.gguf") as refused:
        MultiAdapterModel(tiny_model).add("a", run.model)
    assert refused.value.code == "base_changed"

    with file.open("ab") as content:
        content.write(b"more")
    for use in (
        lambda: Model.open(run.model),
        lambda: MultiAdapterModel(dequantised(gguf_file)).add("a", run.model),
        lambda: runs.train(runs.make("later", model=source)),
    ):
        with pytest.raises(TrainingProblem, match=r"base model .*base\.gguf has changed since") as refused:
            use()
        assert refused.value.code == "base_changed"


def test_a_folder_that_cannot_be_renamed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "other").touch()
    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path / "new", tmp_path / "model")
    (tmp_path / "model" / "config.json").touch()
    publish(tmp_path / "new", tmp_path / "model")  # another process has written the same model


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUX" * 100)
    with pytest.raises(TrainingProblem, match="as a GGUF model"):
        dequantised(tmp_path / "model.gguf")


def test_a_model_from_a_configuration(runs: Runs, tmp_path: Path) -> None:
    document = tmp_path / "tiny.json"
    document.write_text(json.dumps({"model": {"hidden_size": 32}, "tokenizer": {"vocab_size": 300}}))
    source = {"source": "config", "path": str(document)}
    made = [runs.make(name, model=source, hyperparameters={"max_steps": 2}) for name in ("one", "other")]
    for run in made:
        assert runs.train(run) == "succeeded"
    assert same_bits(*(weights(run.path / "base") for run in made))
    assert same_bits(*(weights(run.model) for run in made))
    assert read_json(made[0].path / "base" / "config.json")["hidden_size"] == 32


def test_two_processes_build_the_same_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one starts and ends while this one is at it."""
    document = tmp_path / "tiny.json"
    document.write_text(json.dumps({"model": {"hidden_size": 32}, "tokenizer": {"vocab_size": 300}}))
    source, scratch = ModelSource(source="config", path=str(document)), tmp_path / "base"
    build = models.write_model_from_config

    def build_beside_another(*args: Any, **kwargs: Any) -> Path:
        monkeypatch.setattr(models, "write_model_from_config", build)
        made = build(*args, **kwargs)
        with monkeypatch.context() as other:
            other.setattr(models.os, "getpid", lambda: 1)
            models.locate(source, scratch=scratch)
        return made

    monkeypatch.setattr(models, "write_model_from_config", build_beside_another)
    assert models.locate(source, scratch=scratch).path == str(scratch)
    assert (scratch / "config.json").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "tiny.json"]


def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    document = tmp_path / "tiny.json"
    document.write_text(json.dumps({"colour": "red"}))
    with pytest.raises(TrainingProblem, match="a model configuration must be an object") as caught:
        models.locate(ModelSource(source="config", path=str(document)), scratch=tmp_path / "base")
    assert caught.value.code == "bad_spec"


def test_the_same_arguments_write_the_same_tiny_model(tmp_path: Path) -> None:
    for name, seed in {"one": 1, "same": 1, "other": 2}.items():
        write_tiny_model(tmp_path / name, vocab_texts=["some words"], seed=seed)
    assert same_bits(weights(tmp_path / "one"), weights(tmp_path / "same"))
    assert not same_bits(weights(tmp_path / "one"), weights(tmp_path / "other"))


@pytest.fixture(scope="session")
def learnt(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """A run of each kind that knows eight answers by heart; the adapter sits on the fully trained model."""
    root = tmp_path_factory.mktemp("learnt")
    rows = [{"messages": row["messages"][:2]} for row in sums(8)]
    runs = Runs(root, tiny_model)
    hyper = {"max_steps": 150, "batch_size": 8, "learning_rate": 5e-3, "scheduler": "linear"}
    rare = {"every": 1000}
    full = runs.make("full", rows=rows, adapter={"type": "full"}, hyperparameters=hyper, checkpoints=rare)
    runs.train(full)
    other = [{"messages": [row["messages"][0], {"role": "assistant", "content": "No."}]} for row in rows]
    hyper = {"max_steps": 40, "batch_size": 8, "learning_rate": 1e-2}
    adapter = {"type": "lora", "rank": 8}
    lora = Runs(root, full.model).make("lora", rows=other, adapter=adapter, hyperparameters=hyper, checkpoints=rare)
    runs.train(lora)
    return {"full": full.model, "lora": lora.model}


def asked() -> list[str]:
    return [row["messages"][0]["content"] for row in sums(8)]


def test_what_was_learnt_is_answered(learnt: dict[str, Path]) -> None:
    answers = list(Model.open(learnt["full"]).generate(asked(), max_tokens=30))
    assert [a.text for a in answers] == [row["messages"][1]["content"] for row in sums(8)]
    assert {a.finish_reason for a in answers} == {"stop"}


def test_the_adapter_changes_the_answers_and_the_base_stays(learnt: dict[str, Path]) -> None:
    assert {a.text for a in Model.open(learnt["lora"]).generate(asked(), max_tokens=30)} == {"No."}
    base = Model.open(learnt["lora"], base=True).generate(asked(), max_tokens=30)
    assert [a.text for a in base] == [row["messages"][1]["content"] for row in sums(8)]


def test_a_batch_answers_as_one_by_one_does(learnt: dict[str, Path]) -> None:
    model = Model.open(learnt["full"])
    together = list(model.generate(QUESTIONS, max_tokens=12, batch_size=3))
    alone = [next(model.generate([question], max_tokens=12)) for question in QUESTIONS]
    assert together == alone
    assert [a.prompt_tokens for a in together] == [a.prompt_tokens for a in alone]


def test_sampling_is_seeded(learnt: dict[str, Path]) -> None:
    model = Model.open(learnt["full"])

    def draw(seed: int) -> list[str]:
        return [a.text for a in model.generate(QUESTIONS, max_tokens=12, temperature=3.0, top_p=0.9, seed=seed)]

    state = torch.get_rng_state()
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert torch.equal(torch.get_rng_state(), state), "the caller's own random numbers are left alone"


def test_length_ends_an_answer(learnt: dict[str, Path]) -> None:
    (answer,) = Model.open(learnt["full"]).generate(asked()[:1], max_tokens=2)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 2)


def test_messages_are_prompts_too(learnt: dict[str, Path]) -> None:
    model = Model.open(learnt["full"])
    words, messages = (list(model.generate([p])) for p in (asked()[0], [{"role": "user", "content": asked()[0]}]))
    assert words == messages


def test_continued_pre_training_continues(runs: Runs) -> None:
    rows = [{"text": "one two three four five six seven"}] * 4
    spec = {"hyperparameters": {"max_steps": 100, "batch_size": 4}, "checkpoints": {"every": 1000}}
    run = runs.make(rows=rows, method="cpt", adapter={"type": "full"}, **spec)
    runs.train(run)
    (answer,) = Model.open(run.model).generate(["one two three"], max_tokens=40)
    assert answer.text == " four five six seven"
    assert answer.finish_reason == "stop"


def test_merged_weights_are_the_same_model_without_peft(learnt: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    files = export(learnt["lora"], tmp_path / "merged", merged=True)
    assert {f.name for f in files} >= {"model.safetensors", "config.json", "tokenizer.json", "tuned.json"}
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    tuned = load_tuned(learnt["lora"], read_tuned(learnt["lora"]), dtype=torch.float32)
    torch.testing.assert_close(logits(merged), logits(tuned), rtol=1e-4, atol=1e-4)
    assert {a.text for a in Model.open(tmp_path / "merged").generate(asked(), max_tokens=30)} == {"No."}


def test_the_adapter_is_exported_as_it_is(learnt: dict[str, Path], tmp_path: Path) -> None:
    files = export(learnt["lora"], tmp_path / "deep" / "adapter")
    assert {f.name for f in files} >= {"adapter_model.safetensors", "adapter_config.json", "tuned.json"}
    assert same_bits(weights(tmp_path / "deep" / "adapter"), weights(learnt["lora"]))


def test_export_never_overwrites(learnt: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="already exists"):
        export(learnt["lora"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_no_tuned_model(tmp_path: Path) -> None:
    with pytest.raises(TrainingProblem, match="has no tuned model"):
        Model.open(tmp_path)


def test_peft_alone_can_load_the_adapter(learnt: dict[str, Path]) -> None:
    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(learnt["lora"])
    tuned = load_tuned(learnt["lora"], read_tuned(learnt["lora"]), dtype=torch.float32)
    torch.testing.assert_close(logits(model), logits(tuned))


def test_no_warning_in_a_plain_run(runs: Runs) -> None:
    run = runs.make(rows=texts(4), hyperparameters={"max_steps": 1})
    runs.train(run)
    assert events(run, "warning") == []
    assert metrics(run)
