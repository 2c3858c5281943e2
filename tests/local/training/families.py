"""Tiny models of the causal families of transformers, with the sizes that each family's configuration understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cloudtune_trainer.tiny import CHAT_TEMPLATE, build_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SIZES: dict[str, Any] = {
    "hidden_size": 32, "n_embd": 32, "d_model": 32, "intermediate_size": 64, "ffn_dim": 64, "n_inner": 64,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "n_positions": 256, "moe_intermediate_size": 16, "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "ffn_hidden_size": 64, "decoder_layers": 2, "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64,
    "shared_expert_intermediate_size": 16,
}  # fmt: skip
"""Set where the family's configuration has a field of that name."""
_LATENT = {
    "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "kv_lora_rank": 8, "q_lora_rank": 8, "head_dim": 4,
    "num_key_value_heads": 4,
}  # fmt: skip
_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
_LINEAR = {"layer_types": ["linear_attention", "full_attention"]}

FAMILIES: dict[str, dict[str, Any]] = {
    "afmoe": {}, "apertus": {}, "arcee": {}, "aria_text": {}, "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "bart": {}, "bert": {}, "bigbird_pegasus": {}, "biogpt": {}, "bitnet": {}, "blenderbot": {}, "bloom": {},
    "camembert": {}, "codegen": {"rotary_dim": 4}, "cohere": {}, "cohere2": {}, "cpmant": {}, "ctrl": {}, "cwm": {},
    "deepseek_v2": _LATENT, "deepseek_v3": {**_LATENT, "n_group": 1, "topk_group": 1}, "diffllama": {}, "doge": {},
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1}, "electra": {}, "ernie4_5": {}, "ernie4_5_moe": {},
    "exaone4": {}, "falcon": {},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1},
    "falcon_mamba": {"state_size": 4}, "flex_olmo": {}, "gemma": {}, "gemma2": {},
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}, "glm": {},
    "glm4": {}, "glm4_moe": {}, "glm4_moe_lite": _LATENT, "gpt2": {}, "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 6}, "gpt_neox": {}, "gpt_oss": {},
    "gptj": {"rotary_dim": 4}, "granite": {}, "granitemoe": {},
    "granitemoehybrid": {**_MAMBA2, "layer_types": ["mamba", "attention"]}, "granitemoeshared": {}, "helium": {},
    "hunyuan_v1_dense": {}, "hunyuan_v1_moe": {}, "internlm3": {}, "jais2": {},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
              "mamba_d_state": 4, "mamba_dt_rank": 4},
    "jetmoe": {}, "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}, "llama": {},
    "llama4_text": {"attention_chunk_size": 16, "intermediate_size_mlp": 32, "num_local_experts": 2,
                    "num_experts_per_tok": 1},
    "longcat_flash": {**_LATENT, "moe_topk": 2, "expert_ffn_hidden_size": 16, "zero_expert_num": 1},
    "mamba": {"state_size": 4}, "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "minicpm3": _LATENT, "minimax": {**_LINEAR, "block_size": 4}, "minimax_m2": {}, "ministral": {}, "mistral": {},
    "mixtral": {}, "modernbert-decoder": {}, "mpt": {}, "nanochat": {}, "nemotron": {},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8,
                   "ssm_state_size": 8, "n_groups": 1},
    "olmo": {}, "olmo2": {}, "olmo3": {}, "olmo_hybrid": _LINEAR, "olmoe": {}, "openai-gpt": {}, "opt": {},
    "persimmon": {}, "phi": {}, "phi3": {}, "phimoe": {}, "prophetnet": {}, "qwen2": {}, "qwen2_moe": {}, "qwen3": {},
    "qwen3_5_text": _LINEAR, "qwen3_moe": {}, "qwen3_next": _LINEAR,
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "lru_width": 32, "attention_window_size": 8},
    "roberta": {}, "rwkv": {"attention_hidden_size": 32, "context_length": 128}, "seed_oss": {}, "smollm3": {},
    "solar_open": {}, "stablelm": {}, "starcoder2": {}, "vaultgemma": {}, "xglm": {}, "xlm": {}, "xlnet": {},
    "xlstm": {"embedding_dim": 32, "num_blocks": 2}, "youtu": {**_LATENT}, "zaya": {"num_experts_per_tok": 1},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["mamba", "hybrid", "hybrid"], "mamba_d_state": 8,
              "num_key_value_heads": 4, "attention_head_dim": 16, "attention_hidden_size": 64, "n_mamba_heads": 2},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"], "mamba_d_state": 8,
               "mamba_ngroups": 1, "n_mamba_heads": 8, "mamba_headdim": 8, "num_key_value_heads": 4,
               "attention_head_dim": 16, "attention_hidden_size": 64, "num_mem_blocks": 1},
}  # fmt: skip
"""Model type -> the fields that differ from `SIZES`."""


def config_of(family: str, **fields: Any) -> Any:
    """A tiny configuration of that family."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    there, aliases = kind().to_dict(), getattr(kind, "attribute_map", {})
    sizes = {name: size for name, size in SIZES.items() if name in there or name in aliases}
    sizes = {name: size for name, size in sizes.items() if aliases.get(name) not in sizes}
    return kind(**{**sizes, **FAMILIES.get(family, {}), **fields})


def write_family(folder: Path, family: str, **fields: Any) -> Path:
    """Write a tiny model of that family with a byte-level tokenizer."""
    from transformers import AutoModelForCausalLM

    tokenizer = build_tokenizer([], vocab_size=260, chat_template=CHAT_TEMPLATE)
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 3}
    torch.manual_seed(0)
    config = config_of(family, vocab_size=len(tokenizer), **tokens, **fields)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
