"""Documents of the emulator's public hub. INVENTED: real names of models, made-up contents in the real form.

Form: sagemaker-core 2.27.0, ``jumpstart/models.py`` (HubContentDocument), which reads all of them; recipes as
sagemaker-train 1.27.0 reads them. Keys of a model's hyperparameters are capitalized, those of an instance type's
variant are lowercase, as there. Image names, S3 keys, defaults and limits are placeholders, not the vendor's values.
"""

from __future__ import annotations

import json
from typing import Any

HUB = "SageMakerPublicHub"
SCHEMA_VERSION = "2.3.0"
INVENTED = "invented for the emulator: not what AWS publishes for this model"
_IMAGE = "763104351884.dkr.ecr.{region}.amazonaws.com/huggingface-pytorch-training:2.8.0-transformers4.56.2-gpu-py312"
_SERVING = "763104351884.dkr.ecr.{region}.amazonaws.com/djl-inference:0.33.0-lmi15.0.0-cu128"


def cache_bucket(region: str) -> str:
    """The bucket of JumpStart's scripts, weights, recipes and manifest (sagemaker-core 2.27.0, region_config.json)."""
    return f"jumpstart-cache-prod-{region}"


def gated_bucket(region: str) -> str:
    """The bucket of gated models' weights (the same file)."""
    return f"jumpstart-private-cache-prod-{region}"


def names() -> tuple[str, ...]:
    """Models of the hub."""
    return tuple(_MODELS)


def version(name: str) -> str:
    """The newest version of a model."""
    return str(_MODELS[name]["version"])


def document(name: str, region: str) -> dict[str, Any]:
    """A model's document. Raises KeyError."""
    model = _MODELS[name]
    found = {
        "CloudtuneNote": INVENTED, "ModelTypes": model.get("types", ["OPEN_WEIGHTS"]),
        "Url": f"https://example.com/models/{name}",
        "MinSdkVersion": "2.189.0", "TrainingSupported": model["trains"], "FineTuningSupported": model["trains"],
        "IncrementalTrainingSupported": False, "ResourceNameBase": name[:30], "GatedBucket": model["gated"],
        "Task": "text-generation", "Framework": "huggingface", "Provider": name.partition("-")[0], "DataType": "text",
        "License": model["license"], "Capabilities": ["FINE_TUNING", "VALIDATION"] if model["trains"] else [],
        **_hosting(name, model, region),
    }  # fmt: skip
    if model["gated"]:
        found["HostingEulaUri"] = f"s3://{cache_bucket(region)}/fmhMetadata/eula/{name}.txt"
    if model["trains"]:
        found |= _training(name, model, region)
    if model["recipes"]:
        found["RecipeCollection"] = [_recipe(name, region, *one) for one in model["recipes"]]
    return found


def _hosting(name: str, model: dict[str, Any], region: str) -> dict[str, Any]:
    types = ["ml.g5.2xlarge", "ml.g5.12xlarge", "ml.g6.2xlarge"]
    return {
        "HostingEcrUri": _SERVING.format(region=region), "DefaultInferenceInstanceType": types[0],
        "SupportedInferenceInstanceTypes": types, "InferenceVolumeSize": 256, "HostingUseScriptUri": False,
        "HostingArtifactUri": f"s3://{_weights(model, region)}/{name}/artifacts/inference/v{model['version']}/",
        "HostingArtifactS3DataType": "S3Prefix", "HostingArtifactCompressionType": "None",
        "InferenceEnvironmentVariables": [
            {"Name": "SAGEMAKER_MODEL_SERVER_WORKERS", "Type": "int", "Default": 1, "Scope": "container",
             "RequiredForModelClass": True},
            {"Name": "OPTION_ROLLING_BATCH", "Type": "text", "Default": "vllm", "Scope": "container",
             "RequiredForModelClass": True},
        ],
        "SageMakerSdkPredictorSpecifications": {
            "DefaultContentType": "application/json", "SupportedContentTypes": ["application/json"],
            "DefaultAcceptType": "application/json", "SupportedAcceptTypes": ["application/json"],
        },
    }  # fmt: skip


def _weights(model: dict[str, Any], region: str) -> str:
    return gated_bucket(region) if model["gated"] else cache_bucket(region)


def _training(name: str, model: dict[str, Any], region: str) -> dict[str, Any]:
    bucket = cache_bucket(region)
    weights = f"s3://{_weights(model, region)}/{name}/artifacts/train/v{model['version']}/"
    families: dict[str, Any] = {
        "g5": {"Properties": {"ImageUri": "$gpu_image", "EnvironmentVariables": {"SELF_DESTRUCT": "no"},
                              "Hyperparameters": _lower(model["g5"])}},
        "p5": {"Properties": {"ImageUri": "$gpu_image"}},
    }  # fmt: skip
    if model["gated"]:
        for family in families.values():
            family["Properties"]["GatedModelEnvVarUri"] = weights
    return {
        "TrainingScriptUri": f"s3://{bucket}/source-directory-tarballs/{name}/transfer_learning/v1/sourcedir.tar.gz",
        "TrainingEcrUri": _IMAGE.format(region=region), "TrainingArtifactUri": weights,
        "TrainingArtifactS3DataType": "S3Prefix", "TrainingArtifactCompressionType": "None",
        "DefaultTrainingDatasetUri": f"s3://{bucket}/training-datasets/oasst_top/train/",
        "DefaultTrainingInstanceType": model["instance"], "SupportedTrainingInstanceTypes": model["instances"],
        "TrainingVolumeSize": 256, "TrainingEnableNetworkIsolation": model["gated"], "ValidationSupported": True,
        "EncryptInterContainerTraffic": False, "MaxRuntimeInSeconds": 360000, "DisableOutputCompression": False,
        "TrainingMetrics": [
            {"Name": "huggingface-textgeneration:train-loss", "Regex": "'loss': ([0-9]+\\.[0-9]+)"},
            {"Name": "huggingface-textgeneration:eval-loss", "Regex": "'eval_loss': ([0-9]+\\.[0-9]+)"},
        ],
        "Hyperparameters": _upper(model),
        "TrainingInstanceTypeVariants": {
            "Aliases": {"gpu_image": _IMAGE.format(region=region)}, "Variants": families,
        },
    }  # fmt: skip


_Row = tuple[str, str, Any, Any, Any, list[str] | None]
_BOOLS = ["True", "False"]
_COMMON: list[_Row] = [
    ("epoch", "int", 5, 1, 1000, None), ("learning_rate", "float", 0.0001, 1e-08, 1, None),
    ("per_device_train_batch_size", "int", 4, 1, 1000, None), ("per_device_eval_batch_size", "int", 1, 1, 1000, None),
    ("max_input_length", "int", -1, -1, None, None), ("max_train_samples", "int", -1, -1, None, None),
    ("max_val_samples", "int", -1, -1, None, None), ("validation_split_ratio", "float", 0.2, 0, 1, None),
    ("train_data_split_seed", "int", 0, 0, None, None), ("seed", "int", 10, 0, 4294967295, None),
    ("preprocessing_num_workers", "text", "None", None, None, None), ("lora_r", "int", 8, 1, None, None),
    ("lora_alpha", "int", 32, 1, None, None), ("lora_dropout", "float", 0.05, 0, 1, None),
    ("target_modules", "text", "q_proj,v_proj", None, None, None),
    ("int8_quantization", "text", "False", None, None, _BOOLS), ("enable_fsdp", "text", "True", None, None, _BOOLS),
    ("merge_weights", "text", "False", None, None, _BOOLS), ("chat_template", "text", "None", None, None, None),
]  # fmt: skip


def _upper(model: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [*_COMMON, ("instruction_tuned", "text", model["instruct"], None, None, _BOOLS),
            ("chat_dataset", "text", model["chat"], None, None, _BOOLS)]  # fmt: skip
    found = []
    for name, kind, default, least, most, options in rows:
        entry = {"Name": name, "Type": kind, "Default": default, "Scope": "algorithm"}
        given = {"Min": least, "Max": most, "Options": options}
        found.append(entry | {key: value for key, value in given.items() if value is not None})
    legacy = {"sagemaker_submit_directory": "/opt/ml/input/data/code/sourcedir.tar.gz",
              "sagemaker_program": "transfer_learning.py", "sagemaker_container_log_level": "20"}  # fmt: skip
    return [*found, *({"Name": k, "Type": "text", "Default": v, "Scope": "container"} for k, v in legacy.items())]


def _lower(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "type": "text", "default": value, "scope": "algorithm"} for name, value in values.items()]


# -- serverless recipes ------------------------------------------------------------------------------------------------


def _recipe(name: str, region: str, technique: str, peft: str | None) -> dict[str, Any]:
    stem = f"{name}-{technique.lower()}-{(peft or 'full').lower()}"
    base = f"s3://{cache_bucket(region)}/recipes/{stem}"
    found = {
        "Name": f"verl-{stem}", "DisplayName": f"{name} {technique}", "Type": "FineTuning", "SequenceLength": "4K",
        "CustomizationTechnique": technique, "SmtjRecipeTemplateS3Uri": f"{base}_template.yaml",
        "SmtjOverrideParamsS3Uri": f"{base}_override_params.json",
    }  # fmt: skip
    return found | ({"Peft": peft} if peft else {})


def override_params(technique: str, peft: str | None) -> dict[str, Any]:
    """The settings that a recipe allows: ``{key: {type, min, max, enum, default, required}}``."""
    batches = {"DPO": [16, 32, 64, 128], "RLVR": [128, 256, 512, 1024], "RLAIF": [128, 256, 512, 1024]}
    batch = batches.get(technique, [8, 16, 32, 64, 128, 256, 512, 1024])
    rate = (1e-7, 1e-3) if technique.startswith("RL") else (5e-7, 1e-4)
    found: dict[str, Any] = {
        "max_epochs": {"type": "integer", "min": 1, "max": 100, "default": 1},
        "global_batch_size": {"type": "integer", "enum": batch, "default": batch[0]},
        "learning_rate": {"type": "float", "min": rate[0], "max": rate[1], "default": 1e-5},
        "lr_warmup_steps_ratio": {"type": "float", "min": 0.0, "max": 1.0, "default": 0.1},
        "lr_scheduler": {"type": "string", "enum": ["cosine", "constant"], "default": "cosine"},
        "gradient_clipping_threshold": {"type": "float", "min": 0.0, "max": 5.0, "default": 1.0},
        "seed": {"type": "integer", "min": 0, "max": 2147483647, "default": 42},
    }
    if technique in ("SFT", "DPO"):
        found["dataset_max_len"] = {"type": "integer", "min": 256, "max": 131072, "default": 4096}
        found["weight_decay"] = {"type": "float", "min": 0.0, "max": 1.0, "default": 0.01}
    if technique == "DPO":
        found["adam_beta"] = {"type": "float", "min": 0.001, "max": 0.1, "default": 0.1}
    if technique == "RLVR":
        found["preset_reward_function"] = {"type": "string", "enum": ["gsm8k", "prime_code", "prime_math"],
                                           "default": "prime_math"}  # fmt: skip
    if peft:
        found["lora_rank"] = {"type": "integer", "enum": [8, 16, 32, 64, 128], "default": 32}
        found["lora_dropout"] = {"type": "float", "min": 0.0, "max": 1.0, "default": 0.0}
        found["lora_alpha"] = {"type": "integer", "enum": [16, 32, 64, 128, 256], "default": 64}
    return {key: value | {"required": True} for key, value in found.items()}


def manifest() -> bytes:
    """``models_manifest.json`` (sagemaker-core 2.27.0, ``jumpstart/types.py``, JumpStartModelHeader)."""
    entries = [
        {"model_id": name, "version": _MODELS[name]["version"], "min_version": "2.189.0",
         "spec_key": f"community_models/{name}/specs_v{_MODELS[name]['version']}.json"}
        for name in _MODELS
    ]  # fmt: skip
    return json.dumps(entries).encode()


_ALL = [("SFT", "LORA"), ("SFT", None), ("DPO", "LORA"), ("RLVR", "LORA"), ("RLAIF", "LORA")]
_MODELS: dict[str, dict[str, Any]] = {
    "meta-textgeneration-llama-3-2-1b-instruct": {
        "version": "1.3.0", "gated": True, "trains": True, "license": "llama3.2", "instruct": "False", "chat": "False",
        "instance": "ml.g5.2xlarge", "instances": ["ml.g5.2xlarge", "ml.g5.12xlarge", "ml.p5.48xlarge"],
        "g5": {"per_device_train_batch_size": 1, "int8_quantization": "True", "enable_fsdp": "False",
               "max_input_length": 512}, "recipes": _ALL,
    },
    "huggingface-llm-falcon-7b-bf16": {
        "version": "3.8.1", "gated": False, "trains": True, "license": "apache-2.0", "instruct": "True",
        "chat": "False", "instance": "ml.g5.12xlarge", "instances": ["ml.g5.12xlarge", "ml.p5.48xlarge"],
        "g5": {"per_device_train_batch_size": 2}, "recipes": [],
    },
    "huggingface-reasoning-qwen3-8b": {
        "version": "1.0.4", "gated": False, "trains": False, "license": "apache-2.0", "recipes": _ALL,
    },
    "openai-reasoning-gpt-oss-20b": {
        "version": "1.0.2", "gated": False, "trains": False, "license": "apache-2.0", "recipes": _ALL,
    },
    "nova-textgeneration-lite-v2": {
        "version": "1.0.0", "gated": False, "trains": False, "license": "amazon", "types": ["PROPRIETARY"],
        "recipes": [("SFT", "LORA"), ("SFT", None), ("DPO", "LORA")],
    },
}  # fmt: skip
