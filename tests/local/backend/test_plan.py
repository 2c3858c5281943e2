"""The plan: every value in force with its source, the trainer's whole spec.json, refusals and warnings."""

import json

import msgspec
import pytest

from cloudtune.data.write.dropped_features import FEATURES
from cloudtune.errors import BackendNotInstalled, Problem, SpecError
from cloudtune.plan import DataReport, PlanRequest, Resolved, SplitInfo, plan_from_json, plan_to_json
from cloudtune.spec import JobSpec
from cloudtune.state import JobRef
from cloudtune_local import backend
from cloudtune_local.backend import LocalBackend
from cloudtune_local.options import Options
from cloudtune_trainer.run_spec import read_spec
from cloudtune_trainer.submit import memory
from cloudtune_trainer.submit.adapter_facts import find_adapter
from cloudtune_trainer.submit.model_facts import _of_weights
from cloudtune_trainer.submit.plan import _NOT_READ, _SELDOM_SHOWN

SPLIT = SplitInfo(rows=12, bytes=600, sha256="a" * 64, kind="chat", longest_chars=50)
MODEL = {"source": "folder", "path": "/models/tiny", "revision": None, "context_length": 2048, "chat_template": True}


def request(root, *, splits=("train",), model=MODEL, gpus=0, parent=None, longest=50, **spec):
    import msgspec

    document = {"name": "one", "model": "/models/tiny", "data": {"train": "rows.jsonl"}, **spec}
    split = msgspec.structs.replace(SPLIT, longest_chars=longest)
    facts = {"model": model, "python": "/usr/bin/python3", "gpus": gpus}
    return PlanRequest(
        spec=JobSpec.model_validate(document), data=DataReport(splits=dict.fromkeys(splits, split), fingerprint="f"),
        resolved=Resolved(scope=str(root), facts=facts), key="k" * 32, attempt=1, token="t" * 32, parent=parent,
    )  # fmt: skip


def planned(root, **changes):
    return LocalBackend(Options(root=root)).plan(request(root, **changes))


def spec_json(plan):
    return plan.steps[-1].request["spec"]


def sources(plan):
    return {setting.field: (setting.value, setting.source) for setting in plan.settings}


def errors_of(root, **changes):
    spec = request(root, **changes).spec
    return {problem.field: problem for problem in LocalBackend(Options(root=root)).check(spec)}


def test_the_whole_plan_of_a_small_job(tmp_path):
    plan = planned("/runs")
    assert [(step.id, step.kind, step.once) for step in plan.steps] == [
        ("encode_train", "encode", "pure"),
        ("create_run", "call", "atomic"),
    ]
    assert plan.steps[0].request == {"split": "train", "format": "cloudtune", "sha256": "a" * 64}
    assert plan.steps[1].request == {
        "root": "/runs",
        "run": "one-tttttttttt",
        "spec": {
            "version": 2, "name": "one", "model": {"source": "folder", "path": "/models/tiny", "revision": None,
                                                     "fingerprint": None},
            "method": "sft", "loss_on": "assistant",
            "adapter": {"type": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": "all-linear"},
            "hyperparameters": {
                "epochs": 1.0, "max_steps": None, "batch_size": 8, "gradient_accumulation_steps": 1,
                "learning_rate": 0.0002, "scheduler": "linear", "warmup_steps": None, "warmup_ratio": 0.03,
                "weight_decay": 0.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-08, "dropout": None,
                "neftune_alpha": None,
                "max_grad_norm": 1.0, "max_length": 1024, "packing": False, "precision": "auto",
                "gradient_checkpointing": False,
            },
            "validation": {"every": "never", "early_stopping": None}, "checkpoints": {"every": "epoch", "keep": 0},
            "limits": {"max_time": None}, "seed": 0,
            "data": {"train": {"$step": "encode_train", "output": "path"}, "validation": None, "test": None},
            "resume_from": None, "device": "auto", "threads": None, "log_every": 1, "trust_remote_code": False,
        },
        "job": {
            "version": 1, "name": "one", "model": "/models/tiny", "tags": {}, "key": "k" * 32, "attempt": 1,
            "parent": None, "python": "/usr/bin/python3", "processes": 1, "slots": None, "grace_s": 30.0,
        },
    }  # fmt: skip
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))) == plan


def test_the_trainer_takes_what_the_plan_holds(tmp_path):
    document = dict(spec_json(planned(tmp_path, splits=("train", "validation", "test"))))
    document["data"] = {name: f"data/{name}.jsonl" for name in document["data"]}
    read = read_spec(document)
    assert read.adapter.rank == 8
    assert read.validation.every == "epoch"
    full = spec_json(planned(tmp_path, adapter="full", method="cpt"))
    read = read_spec({**full, "data": {"train": "data/train.jsonl"}})
    assert (read.adapter.type, read.loss_on, read.hyperparameters.packing) == ("full", "all", True)


def test_every_value_in_force_has_its_source(tmp_path):
    plan = planned(tmp_path, hyperparameters={"epochs": 3}, overrides={"local": {"threads": 2}}, seed=7)
    reported = sources(plan)
    assert reported["hyperparameters.epochs"] == (3.0, "spec")
    assert reported["seed"] == (7, "spec")
    assert reported["overrides.local.threads"] == (2, "override")
    assert reported["overrides.local.device"] == ("auto", "default of local")
    assert reported["hyperparameters.learning_rate"] == (0.0002, "default of local for lora training")
    assert reported["hyperparameters.max_length"][1].startswith("derived")
    assert "rows" in reported["hyperparameters.packing"][1]
    assert reported["backends.local.slots"] == ("auto", "default of local")
    in_force = {key: value for key, value in spec_json(plan)["hyperparameters"].items() if value is not None}
    assert {f"hyperparameters.{name}" for name in in_force} <= reported.keys()


def test_defaults_follow_the_method_the_adapter_and_the_model(tmp_path):
    assert spec_json(planned(tmp_path, adapter="full"))["hyperparameters"]["learning_rate"] == 2e-5
    assert spec_json(planned(tmp_path, adapter="full"))["adapter"] == {"type": "full"}
    assert spec_json(planned(tmp_path, method="cpt"))["hyperparameters"]["packing"] is True
    short = {**MODEL, "context_length": 256}
    assert spec_json(planned(tmp_path, model=short))["hyperparameters"]["max_length"] == 256
    unknown = {**MODEL, "context_length": None}
    assert spec_json(planned(tmp_path, model=unknown))["hyperparameters"]["max_length"] == 1024
    steps = spec_json(planned(tmp_path, hyperparameters={"warmup_steps": 5}))["hyperparameters"]
    assert (steps["warmup_steps"], steps["warmup_ratio"]) == (5, 0.0)


def test_a_parent_is_looked_for_first(tmp_path):
    parent = JobRef("local", str(tmp_path), "one-before")
    plan = planned(tmp_path, parent=parent)
    assert plan.steps[0].id == "find_checkpoint"
    assert plan.steps[0].request == {"newest_checkpoint_of": str(parent)}
    assert spec_json(plan)["resume_from"] == {"$step": "find_checkpoint", "output": "path"}
    assert (plan.parent, plan.steps[-1].request["job"]["parent"]) == (str(parent), str(parent))


def test_longer_than_the_context_is_refused_with_all_else(tmp_path):
    with pytest.raises(SpecError) as refused:
        planned(
            tmp_path, hyperparameters={"max_length": 4096, "precision": "fp16"}, gpus=0,
            overrides={"local": {"device": "auto"}},
        )  # fmt: skip
    assert [problem.field for problem in refused.value.problems] == [
        "hyperparameters.max_length", "hyperparameters.precision",
    ]  # fmt: skip
    assert "2048" in str(refused.value)


def test_more_processes_than_gpus_are_refused(tmp_path):
    changes = {"gpus": 2, "distributed": {"processes": 4}, "overrides": {"local": {"device": "auto"}}}
    with pytest.raises(SpecError, match="4 processes require as many GPUs"):
        planned(tmp_path, **changes)
    assert planned(tmp_path, **{**changes, "gpus": 0}).steps[-1].request["job"]["processes"] == 4
    one_slot = LocalBackend(Options(root=tmp_path, slots=1))
    with pytest.raises(SpecError, match=r"4 processes require as many GPUs, and backends\.local\.slots is 1"):
        one_slot.plan(request(tmp_path, **{**changes, "gpus": 4}))
    assert one_slot.plan(request(tmp_path, **{**changes, "gpus": 0}))


def test_the_processes_are_shown_and_sent_to_the_trainer(tmp_path):
    plan = planned(tmp_path, distributed={"processes": 2})
    assert spec_json(plan)["distributed"] == {"strategy": "ddp", "processes": 2}
    assert sources(plan)["distributed.processes"] == (2, "spec")
    assert sources(plan)["distributed.strategy"] == ("ddp", "default of local")
    assert plan.steps[-1].request["job"]["processes"] == 2
    assert read_spec({**spec_json(plan), "data": {"train": "t"}}).distributed.processes == 2
    assert "distributed" not in spec_json(planned(tmp_path))


def test_more_processes_than_rows_in_a_batch_are_refused(tmp_path):
    wrong = errors_of(tmp_path, distributed={"processes": 3}, hyperparameters={"batch_size": 2})
    assert wrong["distributed.processes"].fix == "use at most 2, or raise hyperparameters.batch_size"
    by_default = errors_of(tmp_path, distributed={"processes": 9})
    assert by_default["distributed.processes"].message.startswith("9 processes cannot share a batch of 8")
    with pytest.raises(ValueError, match="3 processes cannot be divided evenly over 2 nodes"):
        request(tmp_path, distributed={"processes": 3, "nodes": 2})


def test_what_is_not_sharded_is_refused_at_once(tmp_path):
    wrong = errors_of(
        tmp_path, method="dpo", adapter="dora", layers={"decay": 0.9}, distributed={"strategy": "fsdp", "processes": 2},
        hyperparameters={"precision": "fp16"},
    )["distributed.strategy"]  # fmt: skip
    assert "dpo, a dora adapter, a schedule of layers, fp16" in wrong.message
    alone = errors_of(tmp_path, distributed="fsdp")["distributed.strategy"]
    assert (alone.severity, alone.code) == ("warning", "no_effect")


def test_sharding_divides_the_memory(tmp_path):
    sizes = {"width": 64, "layers": 2, "heads": 2, "vocab": 1000, "attention_dropout": 0, "dropout": 0,
             "is_python_gelu": False, "is_gated": True, "is_tied": True}  # fmt: skip
    model = {**MODEL, "dimensions": sizes}
    whole = memory.estimate(model, spec_json(planned(tmp_path, adapter="full")))
    sharded = planned(tmp_path, adapter="full", distributed={"strategy": "fsdp", "processes": 2})
    half = memory.estimate(model, spec_json(sharded))
    for part in ("weights", "gradients", "optimizer"):
        assert getattr(half, part) == getattr(whole, part) // 2
    assert half.activations == whole.activations // 2, "each has half of the batch"


def test_warnings(tmp_path):
    plan = planned(
        tmp_path, model={**MODEL, "chat_template": False}, longest=4000, overrides={"local": {"device": "cuda"}}
    )
    assert {problem.code for problem in plan.warnings} == {"no_gpu", "no_template", "may_be_cut"}
    assert all(problem.severity == "warning" and problem.fix for problem in plan.warnings)
    assert planned(tmp_path, longest=3000).warnings == ()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"adapter": {"type": "full", "rank": 4}}, "adapter.rank"),
        ({"method": {"name": "cpt", "loss_on": "assistant"}}, "method.loss_on"),
        ({"validation": {"every": "epoch"}}, "validation.every"),
        ({"validation": {"early_stopping": {"patience": 1}}}, "validation.early_stopping"),
        (
            {"data": {"train": "a", "validation": 0.1}, "validation": {"every": "never", "early_stopping": {}}},
            "validation.early_stopping",
        ),
        (
            {"hyperparameters": {"batch_size": 2, "gradient_accumulation_steps": 3}},
            "hyperparameters.gradient_accumulation_steps",
        ),
        ({"hyperparameters": {"max_length": 1}}, "hyperparameters.max_length"),
        (
            {"hyperparameters": {"precision": "fp16"}, "overrides": {"local": {"device": "cpu"}}},
            "hyperparameters.precision",
        ),
    ],
)
def test_values_that_do_not_fit_together(tmp_path, changes, field):
    problems = errors_of(tmp_path, **changes)
    assert problems[field].severity == "error"
    assert problems[field].fix


def test_bf16_on_a_cpu_is_a_warning_and_fine_values_are_none(tmp_path):
    slow = errors_of(tmp_path, hyperparameters={"precision": "bf16"}, overrides={"local": {"device": "cpu"}})
    assert slow["hyperparameters.precision"].severity == "warning"
    assert errors_of(tmp_path, adapter="full", validation={"every": "never"}) == {}


def test_planning_is_pure(tmp_path):
    root = tmp_path / "never-made"
    backend = LocalBackend(Options(root=root))
    assert backend.plan(request(root)) == backend.plan(request(root))
    assert list(backend.list()) == []
    assert not root.exists()


def test_what_the_trainer_cannot_read_is_refused_and_what_it_does_not_show_is_told(tmp_path):
    def noted(*names):
        made = request(tmp_path)
        notes = tuple(Problem(code="feature", severity="info", field=name, message=f"2 rows: {name}") for name in names)
        return msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, problems=notes))

    with pytest.raises(SpecError, match="2 rows: images; the trainer supports text only"):
        LocalBackend(Options(root=tmp_path)).plan(noted("images", "tools"))
    seldom = ("thoughts", "tools", "names", "tool_errors", "parallel_tool_calls")
    plan = LocalBackend(Options(root=tmp_path)).plan(noted(*seldom, "turns"))
    assert [problem.message.partition(";")[0] for problem in plan.warnings] == [f"2 rows: {name}" for name in seldom]
    assert {problem.code for problem in plan.warnings} == {"not_shown"}


def test_every_feature_is_trained_on_or_reported():
    """A feature of rows that no list names would be left out of training without notice."""
    text = {"system", "turns", "weights", "later_system", "repeated_roles"}  # every template renders them
    in_others = {  # part of another feature in the list
        "bucket_owners": "images", "media_formats": "images", "image_details": "images", "tool_images": "images",
        "tool_settings": "tools", "fields": "reward", "unanswered": "distill",
    }  # fmt: skip
    assert {*FEATURES} == text | in_others.keys() | {*_NOT_READ, *_SELDOM_SHOWN}


def test_what_the_model_s_template_shows_is_no_warning(tmp_path):
    made = request(tmp_path)
    note = Problem(code="feature", severity="info", field="tools", message="2 rows: tools")
    made = msgspec.structs.replace(made, data=msgspec.structs.replace(made.data, problems=(note,)))
    facts = {**made.resolved.facts, "model": {**made.resolved.facts["model"], "shown": ("tools",)}}
    made = msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, facts=facts))
    assert LocalBackend(Options(root=tmp_path)).plan(made).warnings == ()


def test_a_target_that_the_model_does_not_have_is_refused_with_the_nearest(tmp_path):
    made = request(tmp_path, adapter={"type": "lora", "targets": ["q_proj", "mlp.up_proj", "v_prj", "proj"]})
    facts = {**made.resolved.facts}
    facts["model"] = {**facts["model"], "modules": ("lm_head", "mlp.up_proj", "self_attn.q_proj", "self_attn.v_proj")}
    made = msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, facts=facts))
    with pytest.raises(SpecError) as caught:
        LocalBackend(Options(root=tmp_path)).plan(made)
    first, second = caught.value.problems
    assert "'v_prj'" in first.message
    assert "v_proj" in (first.fix or "")
    assert "'proj'" in second.message


GROUPS = {
    "model.embed_tokens.weight": (1, 600), "model.layers.*.self_attn.q_proj.weight": (4, 200),
    "model.layers.*.norm.weight": (4, 40), "model.norm.weight": (1, 10),
}  # fmt: skip


def with_weights(made, groups=GROUPS):
    facts = {**made.resolved.facts, "model": {**made.resolved.facts["model"], "weight_groups": groups}}
    return msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, facts=facts))


@pytest.mark.parametrize(("layers", "trained"), [
    ({"freeze_depth": 3}, "70 of 850 weights (8.2%)"), ({"freeze": "layers.[01]"}, "730 of 850 weights (85.9%)"),
    ({"freeze": ["*norm*"], "unfreeze": {"epochs": 1}}, "800 of 850 weights (94.1%)"),
    ({"decay": 0.9}, "850 of 850 weights (100.0%)"),
])  # fmt: skip
def test_the_plan_shows_which_share_of_the_weights_is_trained(tmp_path, layers, trained):
    plan = LocalBackend(Options(root=tmp_path)).plan(with_weights(request(tmp_path, adapter="full", layers=layers)))
    (setting,) = [setting for setting in plan.settings if setting.field == "trained"]
    assert setting.value == trained
    document = spec_json(plan)
    read_spec(document | {"data": {"train": "t"}, "model": {**document["model"], "path": "/m"}})


@pytest.mark.parametrize(("layers", "message"), [
    ({"freeze_depth": 5}, "the model has 4 layers, not 5"),
    ({"unfreeze": [{"layers": 9, "share": 0.2}]}, "the model has 4 layers, not 9"),
    ({"freeze": ["layers.4"]}, "no weight that matches 'layers.4'"),
    ({"learning_rates": {"q_prj": 1e-3}}, "no weight that matches 'q_prj'"),
    ({"freeze": ["*"]}, "no weight is left to train"),
])  # fmt: skip
def test_a_layer_schedule_that_does_not_fit_the_model_is_refused(tmp_path, layers, message):
    with pytest.raises(SpecError, match=message):
        LocalBackend(Options(root=tmp_path)).plan(with_weights(request(tmp_path, adapter="full", layers=layers)))


@pytest.mark.parametrize(("changes", "field"), [
    ({"layers": {"unfreeze": [{"layers": 1, "share": 0.2}]}, "adapter": "full"}, "layers.unfreeze"),
    ({"method": {"name": "rloo", "reward": "rewards.py:score"}}, "method"),
])  # fmt: skip
def test_a_range_test_names_the_field_that_prevents_it(tmp_path, changes, field):
    test = {"local": {"learning_rate_range": {"first": 1e-5, "last": 1.0}}}
    with pytest.raises(SpecError) as caught:
        LocalBackend(Options(root=tmp_path)).plan(with_weights(request(tmp_path, overrides=test, **changes)))
    assert field in [problem.field for problem in caught.value.problems if problem.code == "no_range_test"]


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_names_without_a_prefix_are_left_to_the_trainer(tmp_path, prefix):
    """GPT-2's files lack the start ``transformer.``, which the loaded model has."""
    groups = {"wte.weight": (1, 600), f"{prefix}h.*.attn.c_attn.weight": (4, 200), "ln_f.weight": (1, 10)}
    layers = {"freeze": ["transformer.h.0"], "freeze_depth": 1}
    made = with_weights(request(tmp_path, adapter="full", layers=layers), groups)
    plan = LocalBackend(Options(root=tmp_path)).plan(made)
    warned = [problem for problem in plan.warnings if problem.code == "unknown_layer"]
    assert [(problem.severity, problem.field) for problem in warned] == [("warning", "layers.freeze")]
    assert "trained" not in sources(plan), "the share is not known"


def test_stored_masks_are_no_weights(tmp_path):
    """Older versions of transformers stored GPT-2's attention mask in each layer."""
    import torch
    from safetensors.torch import save_file

    weights = {"wte.weight": 6, "h.0.attn.c_attn.weight": 2, "h.1.attn.c_attn.weight": 2, "h.1.attn.c_attn.bias": 3}
    masks = {"h.0.attn.bias": 100, "h.1.attn.bias": 100, "h.1.attn.masked_bias": 1}
    save_file({name: torch.zeros(size) for name, size in (weights | masks).items()}, tmp_path / "model.safetensors")
    found = _of_weights([tmp_path / "model.safetensors"])
    assert found["parameters"] == sum(weights.values())
    assert found["weight_groups"] == {
        "wte.weight": [1, 6], "h.*.attn.c_attn.weight": [2, 4], "h.*.attn.c_attn.bias": [2, 3],
    }  # fmt: skip


def test_a_layer_schedule_has_no_effect_on_a_prefix(tmp_path):
    spec = request(tmp_path, adapter="prefix", layers={"decay": 0.9}).spec
    (problem,) = LocalBackend(Options(root=tmp_path)).check(spec)
    assert (problem.code, problem.field) == ("no_effect", "layers.decay")


@pytest.mark.parametrize(("method", "adapter", "field"), [
    ("sft", {"type": "dora", "init": "pissa"}, "adapter.init"), ("sft", {"type": "ia3", "rank": 4}, "adapter.rank"),
    ("dpo", {"type": "lora", "init": "olora"}, "adapter.init"),
    ("ipo", {"type": "lora", "bias": "all"}, "adapter.bias"),
    ("dpo", {"type": "lora", "path": "a"}, "adapter.path"), ("kto", {"type": "dora", "path": "a"}, "adapter.path"),
    ("sft", {"type": "head_only", "targets": ["q"]}, "adapter.targets"),
])  # fmt: skip
def test_adapter_settings_that_do_not_fit_are_refused(tmp_path, method, adapter, field):
    spec = request(tmp_path, method=method, adapter=adapter).spec
    (problem,) = LocalBackend(Options(root=tmp_path)).check(spec)
    assert (problem.severity, problem.field) == ("error", field)


def with_adapter(made, config):
    facts = {**made.resolved.facts, "adapter": {"path": "/a", "fingerprint": "f", "config": config}}
    return msgspec.structs.replace(made, resolved=msgspec.structs.replace(made.resolved, facts=facts))


def test_a_relative_path_of_an_adapter_is_of_the_working_directory(tmp_path, monkeypatch):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 3}')
    save_file({"a": torch.zeros(1)}, tmp_path / "a" / "adapter_model.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("a", "~/a"):
        assert find_adapter(request(tmp_path, adapter={"path": path}).spec)["path"] == str(tmp_path / "a")
    with pytest.raises(SpecError, match="the home folder of an unknown user"):
        find_adapter(request(tmp_path, adapter={"path": "~nobody-here/a"}).spec)


def test_qlora_needs_its_package_before_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    with pytest.raises(BackendNotInstalled, match="qlora requires bitsandbytes") as refused:
        LocalBackend(Options(root=tmp_path)).resolve(request(tmp_path, adapter="qlora").spec)
    assert "qlora]" in refused.value.hint


def test_a_given_adapter_decides_its_settings(tmp_path):
    made = with_adapter(request(tmp_path, adapter={"path": "./a"}), {"peft_type": "LORA", "r": 3})
    plan = LocalBackend(Options(root=tmp_path)).plan(made)
    assert spec_json(plan)["adapter"] == {"type": "lora", "path": "/a", "fingerprint": "f"}
    assert sources(plan)["adapter.rank"] == (3, "of the adapter")
    for kind, config in (("lora", {"peft_type": "LORA", "use_dora": True}), ("ia3", {"peft_type": "LORA"})):
        made = with_adapter(request(tmp_path, adapter={"type": kind, "path": "./a"}), config)
        with pytest.raises(SpecError, match=f"and adapter.type is {kind}"):
            LocalBackend(Options(root=tmp_path)).plan(made)
    for adapter, field in (
        ({"path": "a", "rank": 3}, "adapter.rank"), ({"type": "p_tuning", "path": "a"}, "adapter.path"),
        ({"type": "full", "path": "a"}, "adapter.path"),
    ):  # fmt: skip
        (problem,) = LocalBackend(Options(root=tmp_path)).check(request(tmp_path, adapter=adapter).spec)
        assert problem.field == field


def test_a_model_of_the_wrong_family_is_refused(tmp_path):
    pairs, decoder = {**MODEL, "is_encoder_decoder": True}, {**MODEL, "is_encoder_decoder": False}
    for method, model, message in (
        ("seq2seq", decoder, "trains an encoder-decoder"), ("sft", pairs, "trains a causal language model"),
        ("dpo", pairs, "trains a causal language model"),
    ):  # fmt: skip
        with pytest.raises(SpecError) as refused:
            planned(tmp_path, method=method, model=model)
        (problem,) = refused.value.problems
        assert (problem.code, problem.field) == ("wrong_family", "model")
        assert message in problem.message
    for method, model in (("seq2seq", pairs), ("seq2seq", MODEL), ("classification", pairs), ("sft", decoder)):
        assert spec_json(planned(tmp_path, method=method, model=model))["method"] == method


@pytest.mark.parametrize("method", ["token_classification", "question_answering", "seq2seq"])
def test_what_has_no_effect_on_rows_with_answers_is_refused(tmp_path, method):
    found = errors_of(tmp_path, method={"name": method, "loss_on": "last_assistant"}, hyperparameters={"packing": True})
    assert found.keys() == {"method.loss_on", "hyperparameters.packing"}


def test_weights_are_grouped_by_layer(tmp_path):
    import torch
    from safetensors.torch import save_file

    shapes = {"a.embed.weight": 6, "a.layers.0.q.weight": 2, "a.layers.3.q.weight": 2, "a.layers.3.experts.7.w": 5,
              "a.layers.99999999999.w": 1}  # fmt: skip
    save_file({name: torch.zeros(size) for name, size in shapes.items()}, tmp_path / "model.safetensors")
    assert _of_weights([tmp_path / "model.safetensors"])["weight_groups"] == {
        "a.embed.weight": [1, 6], "a.layers.*.q.weight": [4, 4], "a.layers.*.experts.#.w": [4, 5],
        "a.layers.*.w": [1, 1],
    }  # fmt: skip
    hybrid = {"a.layers.*.norm.weight": [4, 4], "a.layers.*.mixer.weight": [3, 9]}
    made = with_weights(request(tmp_path, adapter="full", layers={"freeze_depth": 4}), hybrid)
    with pytest.raises(SpecError, match="no weight is left"):
        LocalBackend(Options(root=tmp_path)).plan(made)


def test_rows_are_grouped_by_length_only_if_they_are_padded(tmp_path):
    grouped = {"local": {"group_by_length": True}}
    made = planned(tmp_path, overrides=grouped, hyperparameters={"packing": False})
    assert spec_json(made)["group_by_length"] is True
    assert "group_by_length" not in spec_json(planned(tmp_path))
    assert read_spec({**spec_json(made), "data": {"train": "t"}}).group_by_length
    with pytest.raises(SpecError) as caught:
        planned(tmp_path, overrides=grouped, hyperparameters={"packing": True})
    assert [problem.field for problem in caught.value.problems] == ["overrides.local.group_by_length"]
