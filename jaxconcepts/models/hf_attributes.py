"""What the attributes of a config.json mean to transformers, so that the rule of `hf_config` works without it.

Three tables: names that no forward pass reads; transformers' base config with its defaults, which change nothing at
their default; and names that the code which all families share reads, though their config classes do not declare them.
Tests hold the tables against the installed transformers.
"""

from __future__ import annotations

from typing import Any

# Bookkeeping, dropout, initialisation, training and heads of other tasks, and what published checkpoints hold though no
# class reads it (n_special, is_llama_config): neutral whatever their value.
NEUTRAL = frozenset([
        "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal", "_commit_hash",
        "_experts_implementation_internal", "_name_or_path", "_num_labels", "architectures", "attention_dropout",
        "attn_implementation", "attn_pdrop", "auto_map", "bos_token_id", "cache_implementation", "classifier_dropout",
        "dtype", "embd_pdrop", "eos_token_id", "finetuning_task", "fusion_config", "gradient_checkpointing",
        "hidden_dropout", "id2label", "initializer_range", "is_llama_config", "keys_to_ignore_at_inference",
        "label2id", "model_type", "n_ctx", "n_special", "name_or_path", "num_labels", "output_attentions",
        "output_hidden_states", "output_past", "pad_token_id", "predict_special_tokens", "problem_type",
        "resid_pdrop", "return_dict", "sep_token_id", "summary_activation", "summary_first_dropout",
        "summary_last_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "task_specific_params", "tokenizer_class", "torch_dtype", "transformers.js_config", "transformers_version",
        "unk_token_id", "use_cache",
])  # fmt: skip

# Of `generate`, which transformers takes out of the config before the model is built. Answers here are greedy.
GENERATION = frozenset([
        "assistant_confidence_threshold", "assistant_lookbehind", "bad_words_ids", "begin_suppress_tokens",
        "diversity_penalty", "do_sample", "early_stopping", "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty",
        "forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "min_length",
        "no_repeat_ngram_size", "num_assistant_tokens", "num_assistant_tokens_schedule", "num_beam_groups",
        "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty",
        "return_dict_in_generate", "suppress_tokens", "target_lookbehind", "temperature", "top_k", "top_p",
        "typical_p", "use_cache",
])  # fmt: skip

# Attributes of the base config in transformers 4 and 5 that are not in the tables above, at their defaults.
BASE_DEFAULTS: dict[str, Any] = {
    "add_cross_attention": False,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "prefix": None,
    "pruned_heads": {},
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "torchscript": False,
    "use_bfloat16": False,
}

# A decoder is one whatever is said here: a model saved again after use as a decoder says true.
EITHER_WAY = frozenset(["is_decoder"])

# What the code that all families share reads (masks, rotary frequencies, weights), declared by the config class or not:
# the value at which it changes nothing. Any other is refused where the family does not take the attribute.
SHARED_READS: dict[str, Any] = {
    "attention_chunk_size": None,
    "is_causal": True,
    "kv_sharing_modes": None,
    "layer_types": None,
    "original_max_position_embeddings": None,
    "partial_rotary_factor": 1.0,
    "per_layer_config": None,
    "quantization_config": None,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": None,
    "sliding_window": None,
    "unpadded_vocab_size": None,
}

# Beside the names that a family's config class declares, those that its forward pass reads: refused where the family's
# `from_hf` takes no notice of them. By model_type.
_LLAMA = frozenset([
        "attention_bias", "head_dim", "hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings",
        "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "rms_norm_eps",
        "rope_parameters", "vocab_size",
])  # fmt: skip
_GEMMA = (_LLAMA - {"hidden_act"}) | {
    "attn_logit_softcapping", "final_logit_softcapping", "hidden_activation", "query_pre_attn_scalar",
    "use_bidirectional_attention",
}  # fmt: skip
FAMILY_READS: dict[str, frozenset[str]] = {
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "gpt2": frozenset([
        "activation_function", "add_cross_attention", "hidden_size", "layer_norm_epsilon", "max_position_embeddings",
        "n_embd", "n_head", "n_inner", "n_layer", "n_positions", "num_attention_heads", "num_hidden_layers",
        "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx", "scale_attn_weights", "vocab_size",
    ]),
    "gpt_neox": (_LLAMA - {"rms_norm_eps"}) | {
        "layer_norm_eps", "rotary_emb_base", "rotary_pct", "use_parallel_residual"
    },
    "llama": _LLAMA | {"mlp_bias"},
    "mamba2": frozenset([
        "chunk_size", "conv_kernel", "expand", "head_dim", "hidden_act", "hidden_size", "layer_norm_epsilon",
        "n_groups", "num_heads", "num_hidden_layers", "rescale_prenorm_residual", "residual_in_fp32", "state_size",
        "time_step_floor", "time_step_limit", "time_step_max", "time_step_min", "time_step_rank", "use_bias",
        "use_conv_bias", "vocab_size",
    ]),
    "mistral": _LLAMA,
    "olmo": _LLAMA | {"clip_qkv"},
    "olmo2": _LLAMA,
    "olmo3": _LLAMA,
    "phi3": _LLAMA,
    "qwen2": _LLAMA | {"max_window_layers", "use_sliding_window"},
    "qwen3": _LLAMA | {"max_window_layers", "use_sliding_window"},
}  # fmt: skip
