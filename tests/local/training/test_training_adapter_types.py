"""Every adapter trains, resumes, answers after a reload, loads in plain peft, and merges where that is exact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cloudtune_trainer import checkpoints, models
from cloudtune_trainer.bottleneck import Bottleneck
from cloudtune_trainer.export import export
from cloudtune_trainer.folder import RunFolder
from cloudtune_trainer.generate import Model, load_tuned
from cloudtune_trainer.multi_adapter import MultiAdapterModel
from cloudtune_trainer.problems import TrainingProblem
from cloudtune_trainer.spec_trained import Adapter
from cloudtune_trainer.tasks.table import open_model
from cloudtune_trainer.tuned import check_adapter, read_tuned

from .conftest import Runs, events, metrics, same_bits, sums, weights
from .families import write_family
from .test_training_classification import rows as labelled
from .test_training_preferences import pairs
from .test_training_preferences import spec_of as preference_spec

KINDS: dict[str, dict[str, Any]] = {
    "rslora": {"type": "lora", "rank": 4, "rslora": True},
    "gaussian": {"type": "lora", "rank": 4, "init": "gaussian"},
    "orthogonal": {"type": "lora", "rank": 4, "init": "orthogonal"},
    "pissa": {"type": "lora", "rank": 4, "init": "pissa"},
    "olora": {"type": "lora", "rank": 4, "init": "olora", "rslora": True},
    "modules": {"type": "lora", "rank": 4, "modules_to_save": ["norm"], "targets": ["q_proj"]},
    "bias": {"type": "lora", "rank": 4, "bias": "all"},
    "dora": {"type": "dora", "rank": 4, "dropout": 0.1},
    "ia3": {"type": "ia3"},
    "prompt": {"type": "prompt", "virtual_tokens": 5},
    "p_tuning": {"type": "p_tuning", "virtual_tokens": 5},
    "bottleneck": {"type": "bottleneck", "bottleneck_size": 6},
    "pfeiffer": {"type": "bottleneck", "bottleneck_size": 6, "placement": "pfeiffer"},
}
MERGEABLE = {"rslora", "gaussian", "orthogonal", "pissa", "olora", "modules", "bias", "dora", "ia3"}
FAST = ("pissa", "dora", "ia3", "prompt", "p_tuning", "bottleneck")
EVERY = [pytest.param(kind, marks=() if kind in FAST else pytest.mark.soak) for kind in KINDS]
HYPER = {"packing": False, "learning_rate": 2e-2, "batch_size": 3, "max_steps": 6}


def spec_of(kind: str) -> dict[str, Any]:
    return {"adapter": KINDS[kind], "seed": 7, "hyperparameters": HYPER}


def check_that_it_learned(run: RunFolder) -> None:
    """The loss of the same rows decreased, from the first evaluation to the last."""
    losses = [line["values"]["loss"] for line in metrics(run, "validation")]
    assert len(losses) > 1
    assert losses[-1] < losses[0]


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found[:, -20:]


def without_cache(network: Any, model: Model, prompt: str, count: int) -> str:
    """The most likely tokens, each from a forward pass over everything before it."""
    tokenizer = model._tokenizer
    ids = tokenizer(model._text(prompt), add_special_tokens=False)["input_ids"]
    start = len(ids)
    for _ in range(count):
        rows = torch.tensor([ids])
        with torch.no_grad():
            ids.append(int(network(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[0, -1].argmax()))
    answer = ids[start:]
    end = next((place for place, token in enumerate(answer) if token in model._ends), len(answer))
    return str(tokenizer.decode(answer[:end], skip_special_tokens=True))


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with biases and an output layer of its own."""
    return write_family(tmp_path_factory.mktemp("qwen2"), "qwen2", tie_word_embeddings=False)


@pytest.mark.parametrize("kind", EVERY)
def test_an_adapter_trains_resumes_answers_and_loads_elsewhere(
    runs: Runs, kind: str, biased: Path, tmp_path: Path
) -> None:
    spec = spec_of(kind) | {"model": {"source": "folder", "path": str(biased)}}
    spec |= {"rows": sums(12), "held_out": sums(4), "validation": {"every": 3}}
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    losses = [m["values"]["loss"] for m in metrics(unbroken)]
    assert losses == [m["values"]["loss"] for m in metrics(broken)]
    check_that_it_learned(unbroken)

    check_adapter(unbroken.model)
    tuned = read_tuned(unbroken.model)
    loaded = load_tuned(unbroken.model, tuned, dtype=torch.float32)
    expected = logits(loaded)
    base = logits(load_tuned(unbroken.model, tuned, dtype=torch.float32, base=True))
    assert (expected - base).norm() > 0.02 * base.norm(), "the adapter changes nothing"
    prompts = ["What is 1 plus 1?", "What?"]
    model = Model.open(unbroken.model, device="cpu")
    together = [answer.text for answer in model.generate(prompts, max_tokens=4)]
    assert together == [a.text for prompt in prompts for a in model.generate([prompt], max_tokens=4)]
    assert together[0] == without_cache(loaded, model, prompts[0], 4)

    if "bottleneck" not in tuned["adapter"]:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        plain = AutoModelForCausalLM.from_pretrained(biased, dtype=torch.float32)
        torch.testing.assert_close(logits(PeftModel.from_pretrained(plain, unbroken.model)), expected)
    if kind in MERGEABLE:
        from transformers import AutoModelForCausalLM

        export(unbroken.model, tmp_path / "merged", merged=True)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
        torch.testing.assert_close(logits(merged), expected, rtol=1e-3, atol=1e-3)
    else:
        with pytest.raises(TrainingProblem, match="cannot be merged"):
            export(unbroken.model, tmp_path / "merged", merged=True)


@pytest.mark.parametrize("kind", ["olora", "modules", "p_tuning", "pfeiffer"])
def test_the_saved_model_is_the_trained_one(runs: Runs, kind: str) -> None:
    """Its loss on the test rows, after a reload, is the one that the run measured with the weights in memory."""
    from cloudtune_trainer.folder import read_json
    from cloudtune_trainer.run_spec import read_spec
    from cloudtune_trainer.tasks.table import task_for

    run = runs.make(rows=sums(6), test=sums(4, seed=1), **spec_of(kind))
    assert runs.train(run) == "succeeded"
    (measured,) = metrics(run, "test")
    task = task_for(read_spec(read_json(run.spec)))
    network = load_tuned(run.model, read_tuned(run.model), dtype=torch.float32).eval()
    samples = task.encode(sums(4, seed=1), models.load_tokenizer(models.BaseModel(str(run.model))))
    with torch.no_grad():
        found = task.forward(network, task.collate(samples, range(4)))
    assert float(found.loss) / found.count == pytest.approx(measured["values"]["loss"], rel=1e-4)


@pytest.mark.parametrize("kind", ["dora", "prompt", "p_tuning", "bottleneck"])
def test_an_adapter_trains_a_classifier(runs: Runs, kind: str) -> None:
    hyper = {"packing": False, "batch_size": 6, "epochs": 6, "learning_rate": 1e-2}
    spec = {"method": "classification", "adapter": KINDS[kind], "seed": 7, "hyperparameters": hyper}
    run = runs.make(rows=labelled(24), held_out=labelled(12), test=labelled(6), **spec)
    assert runs.train(run) == "succeeded"
    (measured,) = metrics(run, "test")
    answers = list(open_model(run.model).generate([row["text"] for row in labelled(6)]))
    right = [answer.text == row["label"] for answer, row in zip(answers, labelled(6), strict=True)]
    assert sum(right) / 6 == pytest.approx(measured["values"]["accuracy"])
    check_that_it_learned(run)


@pytest.mark.parametrize("kind", ["ia3", "prompt", "bottleneck"])
def test_a_new_adapter_is_the_reference(runs: Runs, kind: str) -> None:
    run = runs.make(rows=pairs(6), **preference_spec(KINDS[kind], max_steps=3, packing=False, learning_rate=1e-2))
    assert runs.train(run) == "succeeded"
    first, *_, last = metrics(run)
    if kind != "prompt":  # a new prompt is not without effect
        assert first["values"]["margin"] == pytest.approx(0, abs=1e-5)
    assert last["values"]["margin"] > first["values"]["margin"]


@pytest.mark.parametrize("changes", [{"init": "pissa"}, {"bias": "all"}], ids=str)
def test_an_adapter_that_changes_the_base_has_no_reference(runs: Runs, changes: dict[str, Any]) -> None:
    with pytest.raises(TrainingProblem, match="dpo compares with the base model"):
        runs.train(runs.make(rows=pairs(4), **preference_spec({"type": "lora", **changes})))


def test_a_bottleneck_is_the_module_of_the_paper(tiny_model: Path) -> None:
    place = models.BaseModel(str(tiny_model))
    base, model = (models.load_model(place, dtype=torch.float32) for _ in range(2))
    model = models.add_adapter(model, Adapter(type="bottleneck", bottleneck_size=5), place, "CAUSAL_LM")
    assert torch.equal(logits(model), logits(base)), "a new adapter changes nothing"
    names = [name for name, module in model.named_modules() if isinstance(module, Bottleneck)]
    ends = [f"model.layers.{n}.{end}" for n in range(2) for end in ("self_attn.o_proj", "mlp.down_proj")]
    assert names == ends
    torch.manual_seed(3)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 16
    with torch.no_grad():
        for parameter in trained.values():
            parameter.normal_(std=0.2)
    pieces = {
        name: {part: trained[f"{name}.{part}"] for part in ("down.weight", "down.bias", "up.weight", "up.bias")}
        for name in names
    }
    copies = {
        name: {part: p.detach().clone().requires_grad_() for part, p in each.items()} for name, each in pieces.items()
    }
    for name, own in copies.items():

        def naive(_module: Any, _inputs: Any, y: torch.Tensor, own: dict[str, torch.Tensor] = own) -> torch.Tensor:
            hidden = (y @ own["down.weight"].T + own["down.bias"]).clamp(min=0)
            return y + hidden @ own["up.weight"].T + own["up.bias"]

        base.get_submodule(name).register_forward_hook(naive)
    ids = torch.arange(20, 40)[None]
    base.requires_grad_(False)
    losses = [one.eval()(input_ids=ids, labels=ids).loss for one in (model, base)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    for loss in losses:
        loss.backward()
    for name, own in copies.items():
        for part, copy in own.items():
            torch.testing.assert_close(pieces[name][part].grad, copy.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("family", "ends"), [
    ("gpt2", {"attn.c_proj", "mlp.c_proj"}), ("opt", {"self_attn.out_proj", "fc2"}),
    ("gpt_neox", {"attention.dense", "mlp.dense_4h_to_h"}), ("falcon", {"self_attention.dense", "mlp.dense_4h_to_h"}),
    ("bert", {"attention.output.dense", "output.dense"}), ("mamba", set()), ("mixtral", {"self_attn.o_proj"}),
])  # fmt: skip
def test_bottlenecks_follow_the_sublayers_of_each_family(tmp_path: Path, family: str, ends: set[str]) -> None:
    place = models.BaseModel(str(write_family(tmp_path, family, **{"is_decoder": True} if family == "bert" else {})))
    network = models.load_model(place, dtype=torch.float32)
    if not ends:
        with pytest.raises(TrainingProblem, match="finds no sublayers"):
            models.add_adapter(network, Adapter(type="bottleneck"), place, "CAUSAL_LM")
        return
    before = logits(network)
    model = models.add_adapter(network, Adapter(type="bottleneck"), place, "CAUSAL_LM")
    names = [name for name, module in model.named_modules() if isinstance(module, Bottleneck)]
    found = {name.split(".1.", 1)[1] for name in names if ".1." in name}
    assert found == ends
    assert torch.equal(logits(model), before)


def test_head_only_trains_the_head_of_a_classifier(runs: Runs, tiny_model: Path) -> None:
    hyper = {"packing": False, "batch_size": 6, "epochs": 8, "learning_rate": 3e-2}
    spec = {"method": "classification", "adapter": {"type": "head_only"}, "hyperparameters": hyper}
    run = runs.make(rows=labelled(24), held_out=labelled(12), **spec)
    assert runs.train(run) == "succeeded"
    found, before = weights(run.model), weights(tiny_model)
    assert {name for name in found if name not in before or not torch.equal(found[name], before[name])} == {
        "score.weight", "model.norm.weight",
    }  # fmt: skip
    check_that_it_learned(run)
    assert len(list(open_model(run.model).generate(["the good number"]))) == 1
    with pytest.raises(TrainingProblem, match="LlamaForCausalLM has no head of its own"):
        runs.train(runs.make("lm", adapter={"type": "head_only"}))


def test_adapters_that_change_the_base_are_served_alone(runs: Runs, tiny_model: Path, biased: Path) -> None:
    spec = {"model": {"source": "folder", "path": str(biased)}, **spec_of("bias")}
    run = runs.make("bias", rows=sums(4), **spec)
    assert runs.train(run) == "succeeded"
    with pytest.raises(TrainingProblem, match="trains biases of the base model"):
        MultiAdapterModel(biased, device="cpu").add("one", run.model)
    for kind in ("dora", "ia3"):
        run = runs.make(kind, rows=sums(4), **spec_of(kind))
        assert runs.train(run) == "succeeded"
        shared = MultiAdapterModel(tiny_model, device="cpu")
        shared.add("one", run.model)
        alone = [answer.text for answer in Model.open(run.model, device="cpu").generate(["What?"], max_tokens=5)]
        assert [a.text for a in shared.model("one").generate(["What?"], max_tokens=5)] == alone


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_with_whole_modules_leaves_the_shared_base(runs: Runs, tiny_model: Path, tmp_path: Path) -> None:
    run = runs.make(rows=sums(4), **spec_of("modules"))
    assert runs.train(run) == "succeeded"
    stored = weights(run.model)
    bad = Path(shutil.copytree(run.model, tmp_path / "bad"))
    save_file({name: stored[name] for name in stored if "lora_A" not in name}, bad / "adapter_model.safetensors")
    shared = MultiAdapterModel(tiny_model, device="cpu")
    before, layers = logits(shared._network), [name for name, _ in shared._network.named_modules()]
    with pytest.raises(TrainingProblem, match="missing"):
        shared.add("bad", bad)
    assert torch.equal(logits(shared._network), before)
    shared.add("good", run.model)
    assert not torch.allclose(logits(shared._network), before, rtol=1e-2)
    shared.remove("good")
    assert torch.equal(logits(shared._network), before)
    assert [name for name, _ in shared._network.named_modules()] == layers


@pytest.mark.parametrize(("kind", "field", "value"), [
    ("prompt", "prompt_tuning_init", "TEXT"), ("prompt", "tokenizer_name_or_path", "planted/model"),
    ("prompt", "tokenizer_kwargs", {"trust_remote_code": True}), ("p_tuning", "encoder_hidden_size", 1 << 30),
    ("ia3", "target_modules", {"a": 1}), ("dora", "init_lora_weights", "pissa"), ("bottleneck", "size", 1 << 30),
    ("bottleneck", "target_modules", ["model.norm"]), ("bottleneck", "target_modules", ["no.such"]),
    ("bottleneck", "modules_to_save", ["no.such"]), ("bottleneck", "planted", {"a": 1}),
])  # fmt: skip
def test_a_planted_adapter_configuration_is_refused(
    runs: Runs, kind: str, field: str, value: Any, tmp_path: Path
) -> None:
    run = runs.make(rows=sums(4), **spec_of(kind) | {"hyperparameters": {**HYPER, "max_steps": 1}})
    assert runs.train(run) == "succeeded"
    path = run.model / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(TrainingProblem, match=r"cannot use|has no") as refused:
        Model.open(run.model)
    assert refused.value.code == "model_not_found"


def test_experts_are_left_out_where_an_adapter_cannot_change_them(tmp_path: Path, runs: Runs) -> None:
    folder = write_family(tmp_path / "base", "mixtral")
    for kind in ("dora", "ia3", "pissa"):
        model = {"source": "folder", "path": str(folder)}
        run = runs.make(kind, rows=sums(4), **spec_of(kind) | {"model": model, "hyperparameters": {"max_steps": 1}})
        assert runs.train(run) == "succeeded"
        (warning,) = [event for event in events(run, "warning") if event["message"].startswith("no adapter on")]
        assert "experts.gate_up_proj" in warning["message"]
        assert "is not possible there" in warning["message"]
    assert checkpoints.saved_in(run.checkpoints)


def test_qlora_trains_answers_and_merges_as_the_quantized_model(runs: Runs, biased: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    spec = {"adapter": {"type": "qlora", "rank": 4}, "seed": 7, "hyperparameters": HYPER}
    spec |= {"model": {"source": "folder", "path": str(biased)}}
    spec |= {"rows": sums(12), "held_out": sums(4), "validation": {"every": 3}}
    unbroken, broken = runs.make("unbroken", **spec), runs.make("broken", **spec)
    assert runs.train(unbroken) == "succeeded"
    assert runs.train(broken, stop_after=3) == "interrupted"
    assert runs.train(broken) == "succeeded"
    assert same_bits(weights(unbroken.model), weights(broken.model))
    check_that_it_learned(unbroken)
    tuned = read_tuned(unbroken.model)
    loaded = load_tuned(unbroken.model, tuned, dtype=torch.float32)
    assert (
        loaded.get_submodule("base_model.model.model.layers.0.mlp.up_proj").get_base_layer().weight.dtype == torch.uint8
    )
    expected = logits(loaded)
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    plain = AutoModelForCausalLM.from_pretrained(biased, dtype=torch.float32, quantization_config=config)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(plain, unbroken.model)), expected, rtol=1e-3, atol=1e-3)
    export(unbroken.model, tmp_path / "merged", merged=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-3, atol=1e-3)
    (covered,) = [event["data"] for event in events(unbroken, "message") if "adapted" in event["data"]]
    assert covered["adapted"] > 0.3 * covered["total"]
    with pytest.raises(TrainingProblem, match="trained on a quantized base model"):
        MultiAdapterModel(biased, device="cpu").add("one", unbroken.model)


def test_qlora_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from cloudtune_trainer.quantization import import_library

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingProblem, match="requires bitsandbytes") as refused:
        import_library()
    assert "bitsandbytes" in str(refused.value.hint)
