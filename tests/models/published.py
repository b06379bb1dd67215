"""The attributes of published config.json files, by repository: names, types and settings are those of the files, and
`cut` makes the sizes small."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def cut(config: Config) -> Config:
    """The config with few and small layers, heads in the same proportion, and end-of-text ids in a small vocabulary."""
    small = dict(config)
    gpt2 = {"n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 64, "n_ctx": 64}
    small |= {name: size for name, size in gpt2.items() if name in config}
    sizes = {"hidden_size": 32, "vocab_size": 97, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 12}
    small |= {name: size for name, size in sizes.items() if config.get(name) is not None}
    if config["model_type"] == "mamba2":
        small |= {
            "head_dim": 16,
            "num_heads": 4,
            "state_size": 16,
            "chunk_size": 8,
            "n_groups": min(config["n_groups"], 2),
        }
    if config.get("num_key_value_heads") is not None:
        share = config["num_attention_heads"] / config["num_key_value_heads"]
        small["num_key_value_heads"] = 4 if share <= 1 else 2 if share <= 3 else 1
    layers = 7 if "sliding_window_pattern" in config or "_sliding_window_pattern" in config else 2
    layers = 4 if config["model_type"] == "olmo3" else layers
    if "num_hidden_layers" in config:
        small["num_hidden_layers"] = layers
    if config.get("layer_types"):
        small["layer_types"] = config["layer_types"][:layers]
    for name in ("sliding_window", "sliding_window_size"):
        if config.get(name) is not None:
            small[name] = 5
    if isinstance(config.get("eos_token_id"), int):
        small["eos_token_id"] = config["eos_token_id"] % 97
    elif config.get("eos_token_id"):
        small["eos_token_id"] = [token % 97 for token in config["eos_token_id"]]
    return small | {"bos_token_id": None, "pad_token_id": None}


def _llama(**changes) -> Config:
    shared = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 128000, "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.43.0.dev0",
        "use_cache": True, "vocab_size": 128256,
    }  # fmt: skip
    return shared | changes


def _without(config: Config, *names: str) -> Config:
    return {name: value for name, value in config.items() if name not in names}


def _llama_rope(factor: float) -> Config:
    return {
        "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }  # fmt: skip


_LLAMA_2 = {
    "_name_or_path": "meta-llama/Llama-2-7b-hf", "bos_token_id": 1, "eos_token_id": 2, "num_key_value_heads": 32,
    "intermediate_size": 11008, "max_position_embeddings": 4096, "vocab_size": 32000, "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0", "rope_theta": 10000.0,
}  # fmt: skip
_SMOLLM2 = _llama(
    bos_token_id=1, eos_token_id=2, hidden_size=576, intermediate_size=1536, is_llama_config=True,
    max_position_embeddings=8192, num_attention_heads=9, num_hidden_layers=30, num_key_value_heads=3,
    initializer_range=0.041666666666666664, rope_interleaved=False, rope_theta=100000, tie_word_embeddings=True,
    vocab_size=49152, transformers_version="4.40.1",
)  # fmt: skip

LLAMA: dict[str, Config] = {
    "meta-llama/Meta-Llama-3-8B": _without(
        _llama(max_position_embeddings=8192, transformers_version="4.40.0.dev0"), "mlp_bias"
    ),
    "meta-llama/Llama-3.1-8B": _llama(rope_scaling=_llama_rope(8.0)),
    "meta-llama/Llama-3.1-8B-Instruct": _llama(
        rope_scaling=_llama_rope(8.0), eos_token_id=[128001, 128008, 128009], transformers_version="4.42.3"
    ),
    "meta-llama/Llama-3.2-1B": _llama(
        head_dim=64, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, rope_scaling=_llama_rope(32.0),
        tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.2-3B": _llama(
        head_dim=128, hidden_size=3072, intermediate_size=8192, num_attention_heads=24, num_hidden_layers=28,
        rope_scaling=_llama_rope(32.0), tie_word_embeddings=True,
    ),
    "meta-llama/Llama-2-7b-hf": _without(_llama(**_LLAMA_2), "attention_bias", "attention_dropout", "mlp_bias"),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _llama(
        **_LLAMA_2 | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22,
                      "num_key_value_heads": 4, "max_position_embeddings": 2048}
    ),
    "HuggingFaceTB/SmolLM2-135M": _SMOLLM2,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2
    | {"pad_token_id": 2, "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}}},
    "HuggingFaceTB/SmolLM-360M": _without(
        _SMOLLM2 | {"rope_theta": 10000.0, "num_attention_heads": 15, "num_key_value_heads": 5}, "is_llama_config"
    ),
    "lmsys/vicuna-7b-v1.5-16k": _llama(
        **_LLAMA_2 | {"_name_or_path": "vicuna-7b-v1.5-16k", "rope_scaling": {"factor": 4.0, "type": "linear"},
                      "max_sequence_length": 16384, "pad_token_id": 0}
    ),
    "upstage/Llama-2-70b-instruct-v2": _llama(
        **_LLAMA_2 | {"rope_scaling": {"factor": 2.0, "type": "dynamic"}, "num_key_value_heads": 8}
    ),
    "NousResearch/Yarn-Llama-2-7b-128k": _llama(
        **_LLAMA_2 | {"max_position_embeddings": 131072, "auto_map": {"AutoModelForCausalLM": "modeling_llama.X"},
                      "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 4096, "type": "yarn",
                                       "finetuned": True}}
    ),
    "codellama/CodeLlama-7b-hf": _llama(
        **_LLAMA_2 | {"rope_theta": 1000000, "max_position_embeddings": 16384, "vocab_size": 32016}
    ),
    "deepseek-ai/deepseek-llm-7b-base": _llama(
        **_LLAMA_2 | {"num_hidden_layers": 30, "vocab_size": 102400, "eos_token_id": 100001, "rms_norm_eps": 1e-06}
    ),
    "01-ai/Yi-6B": _llama(
        **_LLAMA_2 | {"num_key_value_heads": 4, "rope_theta": 5000000.0, "vocab_size": 64000, "pad_token_id": 0}
    ),
    "huggyllama/llama-7b": _without(
        _llama(**_LLAMA_2 | {"max_sequence_length": 2048, "max_position_embeddings": 2048, "rms_norm_eps": 1e-06}),
        "num_key_value_heads", "rope_scaling", "rope_theta", "pretraining_tp", "mlp_bias", "attention_bias",
    ),
}  # fmt: skip


def _gpt2(**changes) -> Config:
    shared = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1,
        "bos_token_id": 50256, "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}, "vocab_size": 50257,
    }  # fmt: skip
    return shared | changes


GPT2: dict[str, Config] = {
    "openai-community/gpt2": _gpt2(),
    "openai-community/gpt2-medium": _gpt2(n_embd=1024, n_head=16, n_layer=24, n_special=0, predict_special_tokens=True),
    "openai-community/gpt2-large": _gpt2(n_embd=1280, n_head=20, n_layer=36),
    "openai-community/gpt2-xl": _gpt2(n_embd=1600, n_head=25, n_layer=48, output_past=True),
    "distilbert/distilgpt2": _gpt2(
        _num_labels=1, n_layer=6, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}, use_cache=True
    ),
    "distilbert/distilgpt2, saved again": _gpt2(
        _num_labels=1, n_layer=6, is_decoder=True, n_inner=None, reorder_and_upcast_attn=False,
        scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True, transformers_version="4.40.0",
    ),
    "microsoft/DialoGPT-medium": _gpt2(
        n_embd=1024, n_head=16, n_layer=24, task_specific_params={"conversational": {"max_length": 1000}}
    ),
    "every neutral default spelled out": _gpt2(
        add_cross_attention=False, bad_words_ids=None, begin_suppress_tokens=None, chunk_size_feed_forward=0,
        cross_attention_hidden_size=None, decoder_start_token_id=None, diversity_penalty=0.0, do_sample=False,
        early_stopping=False, encoder_no_repeat_ngram_size=0, exponential_decay_length_penalty=None,
        finetuning_task=None, forced_bos_token_id=None, forced_eos_token_id=None, is_decoder=False,
        is_encoder_decoder=False, length_penalty=1.0, max_length=20, min_length=0, no_repeat_ngram_size=0, num_beams=1,
        num_beam_groups=1, num_return_sequences=1, output_attentions=False, output_hidden_states=False,
        output_scores=False, pad_token_id=None, prefix=None, problem_type=None, pruned_heads={},
        remove_invalid_values=False, repetition_penalty=1.0, return_dict=True, return_dict_in_generate=False,
        sep_token_id=None, suppress_tokens=None, temperature=1.0, tf_legacy_loss=False, tie_encoder_decoder=False,
        tie_word_embeddings=True, tokenizer_class=None, top_k=50, top_p=1.0, torchscript=False, typical_p=1.0,
        unk_token_id=None, use_bfloat16=False,
    ),
}  # fmt: skip


def _gemma2(**changes) -> Config:
    shared = {
        "architectures": ["Gemma2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
        "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "gemma2",
        "num_attention_heads": 16, "num_hidden_layers": 42, "num_key_value_heads": 8, "pad_token_id": 0,
        "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096,
        "torch_dtype": "float32", "transformers_version": "4.42.0.dev0", "use_cache": True, "vocab_size": 256000,
    }  # fmt: skip
    return shared | changes


GEMMA2: dict[str, Config] = {
    "google/gemma-2-2b": _gemma2(hidden_size=2304, intermediate_size=9216, num_attention_heads=8,
                                 num_hidden_layers=26, num_key_value_heads=4),
    "google/gemma-2-2b-it": _gemma2(hidden_size=2304, eos_token_id=[1, 107], num_attention_heads=8,
                                    num_hidden_layers=26, num_key_value_heads=4, torch_dtype="bfloat16"),
    "google/gemma-2-9b": _gemma2(sliding_window_size=4096),
    "google/gemma-2-9b-it": _gemma2(sliding_window_size=4096, torch_dtype="bfloat16"),
    "google/gemma-2-27b": _gemma2(head_dim=128, hidden_size=4608, intermediate_size=36864, num_attention_heads=32,
                                  num_hidden_layers=46, num_key_value_heads=16, query_pre_attn_scalar=144,
                                  sliding_window_size=4096, _attn_implementation="eager"),
}  # fmt: skip


def _olmo(**changes) -> Config:
    shared = {
        "architectures": ["OlmoForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None,
        "eos_token_id": 50279, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008, "max_position_embeddings": 2048, "model_type": "olmo", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 1, "pretraining_tp": 1,
        "rope_scaling": None, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float32",
        "transformers_version": "4.40.0.dev0", "use_cache": True, "vocab_size": 50304,
    }  # fmt: skip
    return shared | changes


OLMO: dict[str, Config] = {
    "allenai/OLMo-1B-hf": _olmo(
        hidden_size=2048, intermediate_size=8192, num_attention_heads=16, num_hidden_layers=16, tie_word_embeddings=True
    ),
    "allenai/OLMo-7B-hf": _olmo(),
    "allenai/OLMo-7B-0424-hf": _olmo(clip_qkv=8.0, max_position_embeddings=4096),
    "allenai/OLMo-2-1124-7B": _olmo(
        architectures=["Olmo2ForCausalLM"], model_type="olmo2", eos_token_id=100257, pad_token_id=100277,
        max_position_embeddings=4096, rms_norm_eps=1e-06, rope_theta=500000, vocab_size=100352,
    ) | {"_name_or_path": "x"},
    "allenai/OLMo-2-0425-1B": _olmo(
        architectures=["Olmo2ForCausalLM"], model_type="olmo2", hidden_size=2048, num_hidden_layers=16,
        rms_norm_eps=1e-06, rope_theta=500000, vocab_size=100352,
    ),
    "allenai/OLMo-2-0325-32B": _olmo(
        architectures=["Olmo2ForCausalLM"], model_type="olmo2", hidden_size=5120, num_attention_heads=40,
        num_key_value_heads=8, num_hidden_layers=64, rms_norm_eps=1e-06, rope_theta=500000, vocab_size=100352,
    ),
}  # fmt: skip
for _config in OLMO.values():
    if _config["model_type"] == "olmo2":
        _config.pop("clip_qkv")


def _pythia(width: int, layers: int, heads: int, **changes) -> Config:
    shared = {
        "architectures": ["GPTNeoXForCausalLM"], "bos_token_id": 0, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_size": width, "initializer_range": 0.02, "intermediate_size": 4 * width, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": heads,
        "num_hidden_layers": layers, "rotary_emb_base": 10000, "rotary_pct": 0.25, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.24.0", "use_cache": True, "use_parallel_residual": True,
        "vocab_size": 50304,
    }  # fmt: skip
    return shared | changes


NEOX: dict[str, Config] = {
    "EleutherAI/pythia-14m": _pythia(128, 6, 4),
    "EleutherAI/pythia-70m": _pythia(512, 6, 8),
    "EleutherAI/pythia-160m": _pythia(768, 12, 12),
    "EleutherAI/pythia-1b": _pythia(2048, 16, 8),
    "EleutherAI/pythia-6.9b": _pythia(4096, 32, 32, vocab_size=50432),
    "EleutherAI/pythia-160m, saved again": _pythia(
        768, 12, 12, attention_bias=True, attention_dropout=0.0, classifier_dropout=0.1, hidden_dropout=0.0,
        rope_scaling=None, transformers_version="4.46.0",
    ),
    "EleutherAI/gpt-neox-20b": _pythia(
        6144, 44, 64, attention_probs_dropout_prob=0, hidden_act="gelu_fast", hidden_dropout_prob=0, eos_token_id=0,
        vocab_size=50432,
    ),
    "stabilityai/stablelm-base-alpha-3b": _pythia(4096, 16, 32, max_position_embeddings=4096, vocab_size=50688),
}  # fmt: skip


def _mistral(**changes) -> Config:
    shared = {
        "architectures": ["MistralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336, "max_position_embeddings": 32768,
        "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.34.0.dev0", "use_cache": True, "vocab_size": 32000,
    }  # fmt: skip
    return shared | changes


MISTRAL: dict[str, Config] = {
    "mistralai/Mistral-7B-v0.1": _mistral(),
    "mistralai/Mistral-7B-Instruct-v0.2": _mistral(attention_dropout=0.0, rope_theta=1000000.0, sliding_window=None),
    "mistralai/Mistral-7B-v0.3": _mistral(
        attention_dropout=0.0, rope_theta=1000000.0, sliding_window=None, vocab_size=32768
    ),
    "mistralai/Mistral-Nemo-Base-2407": _mistral(
        attention_dropout=0.0, head_dim=128, hidden_size=5120, max_position_embeddings=128000, num_hidden_layers=40,
        rope_theta=1000000.0, sliding_window=None, vocab_size=131072,
    ),
    "HuggingFaceH4/zephyr-7b-beta": _mistral(_name_or_path="mistralai/Mistral-7B-v0.1", pad_token_id=2),
}  # fmt: skip


def _qwen(**changes) -> Config:
    shared = {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02,
        "intermediate_size": 18944, "max_position_embeddings": 131072, "max_window_layers": 28, "model_type": "qwen2",
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.40.1", "use_cache": True, "use_mrope": False, "use_sliding_window": False,
        "vocab_size": 152064,
    }  # fmt: skip
    return shared | changes


_QWEN_3 = _qwen(
    architectures=["Qwen3ForCausalLM"], model_type="qwen3", attention_bias=False, head_dim=128, rope_scaling=None,
    max_position_embeddings=40960, sliding_window=None, max_window_layers=36, hidden_size=4096,
    num_attention_heads=32, num_key_value_heads=8, eos_token_id=151645, transformers_version="4.51.0",
)  # fmt: skip
_QWEN_3.pop("use_mrope")
QWEN: dict[str, Config] = {
    "Qwen/Qwen2.5-7B": _qwen(),
    "Qwen/Qwen2.5-0.5B": _qwen(
        hidden_size=896, num_attention_heads=14, num_key_value_heads=2, sliding_window=32768, max_window_layers=24,
        tie_word_embeddings=True,
    ),
    "Qwen/Qwen2.5-7B-Instruct, with its longer context": _qwen(
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    ),
    "Qwen/Qwen2-1.5B": _without(
        _qwen(hidden_size=1536, num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True), "use_mrope"
    ),
    "Qwen/Qwen2.5-Math-1.5B": _qwen(
        max_position_embeddings=4096, max_window_layers=21, rope_theta=10000, sliding_window=4096
    ),
    "Qwen/Qwen3-8B": _QWEN_3,
    "Qwen/Qwen3-0.6B": _QWEN_3
    | {"hidden_size": 1024, "num_attention_heads": 16, "max_window_layers": 28, "tie_word_embeddings": True},
    "Qwen/Qwen3-4B, with its longer context": _QWEN_3
    | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
}  # fmt: skip


def _phi(**changes) -> Config:
    shared = {
        "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.X"},
        "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
        "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096, "model_type": "phi3",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": True, "vocab_size": 32064,
    }  # fmt: skip
    return shared | changes


def _long(count: int) -> Config:
    """Factors in the published order of size; one for each pair of a small head that is turned."""
    short = [1.05, 1.05, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0][:count]
    return {
        "long_factor": [1.03, 1.05, 2.1, 5.3, 12.5, 31.0, 47.0, 64.0][:count],
        "short_factor": short,
        "type": "longrope",
    }


PHI: dict[str, Config] = {
    "microsoft/Phi-3-mini-4k-instruct": _phi(),
    "microsoft/Phi-3-mini-128k-instruct": _phi(
        max_position_embeddings=131072, rope_scaling=_long(4), sliding_window=262144
    ),
    "microsoft/Phi-3.5-mini-instruct": _phi(
        max_position_embeddings=131072, rope_scaling=_long(4), sliding_window=262144
    ),
    "microsoft/Phi-3-medium-4k-instruct": _phi(
        hidden_size=5120, intermediate_size=17920, num_attention_heads=40, num_key_value_heads=10, num_hidden_layers=40
    ),
    "microsoft/phi-4": _phi(
        hidden_size=5120, intermediate_size=17920, num_attention_heads=40, num_key_value_heads=10,
        max_position_embeddings=16384, original_max_position_embeddings=16384, rope_theta=250000, sliding_window=None,
        vocab_size=100352, eos_token_id=100265, bos_token_id=100257,
    ),
    "microsoft/Phi-4-mini-instruct": _phi(
        num_attention_heads=24, num_key_value_heads=8, partial_rotary_factor=0.75, max_position_embeddings=131072,
        rope_scaling=_long(3), sliding_window=262144, tie_word_embeddings=True, vocab_size=200064,
        eos_token_id=199999, full_attn_mod=1, interpolate_factor=1, lm_head_bias=False, mlp_bias=False,
    ),
}  # fmt: skip


def _gemma3(**changes) -> Config:
    shared = {
        "architectures": ["Gemma3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "attn_logit_softcapping": None, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106],
        "final_logit_softcapping": None, "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152, "initializer_range": 0.02, "intermediate_size": 6912, "max_position_embeddings": 32768,
        "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26, "num_key_value_heads": 1,
        "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": None, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "transformers_version": "4.50.0.dev0", "use_cache": True, "vocab_size": 262144,
    }  # fmt: skip
    return shared | changes


GEMMA3: dict[str, Config] = {
    "google/gemma-3-1b-pt": _gemma3(eos_token_id=1),
    "google/gemma-3-1b-it": _gemma3(),
    "google/gemma-3-270m": _without(
        _gemma3(
            _sliding_window_pattern=6, eos_token_id=1, hidden_size=640, intermediate_size=2048, num_hidden_layers=18,
            layer_types=["full_attention" if n % 6 == 5 else "sliding_attention" for n in range(18)],
            rope_local_base_freq=10000.0, rope_theta=1000000.0, use_bidirectional_attention=False,
        ),
        "sliding_window_pattern", "cache_implementation",
    ),
    "google/gemma-3-4b-pt, its text part": _gemma3(rope_scaling={"factor": 8.0, "rope_type": "linear"}),
}  # fmt: skip
OLMO3: dict[str, Config] = {
    "allenai/Olmo-3-1025-7B": {
        "architectures": ["Olmo3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "eos_token_id": 100257, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 11008,
        "layer_types": ["full_attention" if n % 4 == 3 else "sliding_attention" for n in range(32)],
        "max_position_embeddings": 65536, "model_type": "olmo3", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pad_token_id": 100277, "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "attention_factor": 1.2079441541679836, "beta_fast": 32, "beta_slow": 1, "factor": 8.0,
            "original_max_position_embeddings": 8192, "rope_type": "yarn",
        },
        "rope_theta": 500000, "sliding_window": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "transformers_version": "4.57.0", "use_cache": False, "vocab_size": 100278,
    },
}  # fmt: skip

_MAMBA = {
    "architectures": ["Mamba2ForCausalLM"], "bos_token_id": 0, "chunk_size": 256, "conv_kernel": 4, "eos_token_id": 0,
    "expand": 2, "head_dim": 64, "hidden_act": "silu", "hidden_size": 768, "initializer_range": 0.1,
    "layer_norm_epsilon": 1e-05, "model_type": "mamba2", "n_groups": 1, "num_heads": 24, "num_hidden_layers": 24,
    "pad_token_id": 0, "rescale_prenorm_residual": False, "residual_in_fp32": True, "state_size": 128,
    "tie_word_embeddings": True, "time_step_floor": 0.0001, "time_step_limit": [0.0, float("inf")],
    "time_step_max": 0.1, "time_step_min": 0.001, "time_step_rank": 48, "torch_dtype": "float32", "use_bias": False,
    "use_cache": True, "use_conv_bias": True, "vocab_size": 50288,
}  # fmt: skip
MAMBA: dict[str, Config] = {
    "AntonV/mamba2-130m-hf": _MAMBA,
    "mistralai/Mamba-Codestral-7B-v0.1": _MAMBA
    | {
        "hidden_size": 4096, "intermediate_size": 8192, "n_groups": 8, "norm_before_gate": True, "num_heads": 128,
        "num_hidden_layers": 64, "rms_norm": True, "tie_word_embeddings": False, "time_step_init_scheme": "random",
        "time_step_rank": 256, "time_step_scale": 1.0, "vocab_size": 32768,
    },
}  # fmt: skip

PUBLISHED: dict[str, Config] = MAMBA | LLAMA | GPT2 | GEMMA2 | OLMO | NEOX | MISTRAL | QWEN | PHI | GEMMA3 | OLMO3
