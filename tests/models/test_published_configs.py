"""config.json as published: read by us and by transformers, equal at every layer; and the rule for attributes."""

import dataclasses
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

from jaxconcepts.models import hf_attributes, hf_config, language, pretrained
from tests.models.conftest import forward, relative_error, spread_weights
from tests.models.published import PUBLISHED, cut

pytestmark = pytest.mark.usefixtures("compiles_fast")

# Published attributes that nothing reads, and the warning that is to name them.
WARNED = {"lmsys/vicuna-7b-v1.5-16k": "max_sequence_length", "huggyllama/llama-7b": "max_sequence_length"}
WARNED |= {"NousResearch/Yarn-Llama-2-7b-128k": "rope_scaling.finetuned"}
WARNED |= {"EleutherAI/gpt-neox-20b": "hidden_dropout_prob = 0", "microsoft/Phi-4-mini-instruct": "full_attn_mod = 1"}
WARNED |= {"mistralai/Mamba-Codestral-7B-v0.1": "rms_norm = True"}
WARNED |= {name: "use_mrope" for name in PUBLISHED if "use_mrope" in PUBLISHED[name]}


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="the reference implementation needs torch")
    return pytest.importorskip("transformers", reason="the reference implementation is transformers'")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_gives_the_states_of_transformers(transformers, tmp_path, name):
    text = json.dumps(cut(PUBLISHED[name]))
    (tmp_path / "config.json").write_text(text)
    config = transformers.AutoConfig.from_pretrained(tmp_path, attn_implementation="eager")
    transformers.set_seed(0)
    theirs = spread_weights(transformers.AutoModelForCausalLM.from_config(config, dtype="float32").eval())
    tokens = np.random.default_rng(0).integers(0, 97, (2, 20))
    states, logits = forward(theirs, tokens)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model, params = pretrained.load_pretrained(tmp_path)
    mine = [str(warning.message) for warning in seen if "so it is ignored" in str(warning.message)]
    assert len(mine) == (name in WARNED) and all(WARNED[name] in message for message in mine)
    # Models that differ in their stop tokens alone share a program.
    model = dataclasses.replace(model, stop_tokens=())
    ours, our_logits = language.hidden_states(model, params, tokens, at="all", with_logits=True)
    errors = [relative_error(a, b) for a, b in zip([*ours, our_logits], [*states, logits], strict=True)]
    assert max(errors) < 1e-4, errors


def fields_of(name, **changes):
    config = cut(PUBLISHED[name]) | changes
    fields = hf_config.Fields(config, "somewhere/config.json")
    pretrained.FAMILIES[config["model_type"]].from_hf(fields)
    return fields


LLAMA, GPT2 = "meta-llama/Llama-3.1-8B", "openai-community/gpt2"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (LLAMA, {"is_causal": False}, "is_causal = False"),
        (LLAMA, {"rope_interleaved": True}, "rope_interleaved = True"),
        (LLAMA, {"chunk_size_feed_forward": [1]}, r"chunk_size_feed_forward = \[1\]"),
        (LLAMA, {"partial_rotary_factor": 0.5}, r"partial_rotary_factor = 0\.5"),
        (LLAMA, {"sliding_window": 5}, "sliding_window = 5"),
        (LLAMA, {"extra": {"a": 1}}, r"extra = \{'a': 1\}"),
        (GPT2, {"add_cross_attention": True}, "add_cross_attention = True"),
        (GPT2, {"pruned_heads": {"1": [0]}}, "pruned_heads = "),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
        ("google/gemma-2-9b", {"sliding_window_size": 7}, "sliding_window_size must be 5"),
    ],
)
def test_what_a_forward_pass_reads_is_refused_by_name(name, changes, message):
    with pytest.raises(ValueError, match=r"somewhere/config\.json.*" + message):
        fields_of(name, **changes).finish()


@pytest.mark.parametrize("value", ["text", 3, 0.5, True])
def test_a_scalar_that_nothing_reads_is_a_warning_that_names_it(value):
    with pytest.warns(UserWarning, match=r"somewhere/config\.json: an_unknown = .*so it is ignored"):
        fields_of(LLAMA, an_unknown=value).finish()


LLAMA_3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA_3["rope_type"] = "llama3"
PLAIN = {"rope_type": "default", "rope_theta": 123.0}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}
BOTH_NAMES = {
    "scaling beside plain parameters": {"rope_parameters": PLAIN, "rope_scaling": LLAMA_3},
    "and a base beside them": {"rope_parameters": PLAIN, "rope_scaling": LLAMA_3, "rope_theta": 50.0},
    "plain scaling beside scaled parameters": {"rope_parameters": LLAMA_3, "rope_scaling": {"type": "default"}},
    "two scalings": {"rope_parameters": LLAMA_3, "rope_scaling": YARN, "rope_theta": 5000},
    "no scaling": {"rope_parameters": PLAIN | LLAMA_3, "rope_scaling": None, "rope_theta": 5000},
    "an empty one": {"rope_parameters": PLAIN | LLAMA_3, "rope_scaling": {}},
    "a context outside": {"rope_scaling": YARN, "original_max_position_embeddings": 64, "rope_theta": 5000},
    "no context": {"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_theta": 5000},
}


@pytest.mark.parametrize("names", BOTH_NAMES.values(), ids=BOTH_NAMES.keys())
def test_rotary_frequencies_are_transformers_whichever_names_hold_them(transformers, tmp_path, names):
    """rope_scaling, rope_parameters and rope_theta together: the same one counts."""
    config = cut(PUBLISHED["meta-llama/Llama-3.1-8B"])
    config = {name: value for name, value in config.items() if not name.startswith("rope")} | names
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = pretrained.read_config(tmp_path)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(tmp_path)).rotary_emb
    np.testing.assert_allclose(model.frequencies(), theirs.inv_freq.numpy(), rtol=1e-6)
    assert model.amplitude == pytest.approx(theirs.attention_scaling)


LINEAR = {"rope_type": "linear", "factor": 8.0}
BY_KIND = {
    "by the older names": {"rope_theta": 5000, "rope_local_base_freq": 70.0, "rope_scaling": LINEAR},
    "nothing": {},
    "by kind": {"rope_parameters": {"full_attention": LINEAR | {"rope_theta": 900.0}, "sliding_attention": PLAIN}},
    "one kind alone": {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": None}, "rope_theta": 5000},
    "scaling beside kinds": {
        "rope_parameters": {"sliding_attention": PLAIN, "full_attention": PLAIN},
        "rope_scaling": LINEAR,
    },
}


@pytest.mark.parametrize("family", ["google/gemma-3-1b-pt", "allenai/Olmo-3-1025-7B"])
@pytest.mark.parametrize("names", BY_KIND.values(), ids=BY_KIND.keys())
def test_frequencies_of_both_kinds_of_layers_are_transformers(transformers, tmp_path, names, family):
    config = cut(PUBLISHED[family])
    if family.startswith("allenai"):
        # Of OLMo 3 the layers that see everything are scaled by YaRN, and the others' base has no name of its own.
        yarn = {"rope_type": "yarn", "original_max_position_embeddings": 64}
        names = json.loads(json.dumps(names).replace('"rope_type": "linear"', json.dumps(yarn)[1:-1]))
        names.pop("rope_local_base_freq", None)
    config = {name: value for name, value in config.items() if not name.startswith("rope")} | names
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = pretrained.read_config(tmp_path)
    theirs = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(tmp_path)).rotary_emb
    inputs, local = model.layer_inputs(), model.is_local()
    for kind, layer in (("sliding_attention", local.argmax()), ("full_attention", (~local).argmax())):
        np.testing.assert_allclose(
            inputs.frequencies[layer], getattr(theirs, f"{kind}_inv_freq").numpy(), rtol=1e-6, err_msg=kind
        )
        if inputs.amplitude is not None:
            assert inputs.amplitude[layer] == pytest.approx(getattr(theirs, f"{kind}_attention_scaling"))


def test_the_first_name_of_longrope_is_understood():
    name = "microsoft/Phi-3.5-mini-instruct"
    config = cut(PUBLISHED[name])
    older = config | {"rope_scaling": config["rope_scaling"] | {"type": "su"}}
    both = [pretrained.FAMILIES["phi3"].from_hf(hf_config.Fields(c)) for c in (config, older)]
    assert both[0] == both[1] and both[0].rope_scaling is not None


def test_infinity_is_understood_as_transformers_writes_it(tmp_path):
    config = cut(PUBLISHED["AntonV/mamba2-130m-hf"])
    for infinity in (float("inf"), {"__float__": "Infinity"}):
        (tmp_path / "config.json").write_text(json.dumps(config | {"time_step_limit": [0.0, infinity]}))
        assert pretrained.read_config(tmp_path).step_limit is None


def test_neutral_defaults_are_those_of_transformers(transformers):
    """Every attribute of the installed base config is neutral at its default, and so is every one of generation."""
    base = transformers.PreTrainedConfig()
    for name, value in base.to_dict().items():
        if name not in hf_attributes.NEUTRAL | hf_attributes.GENERATION:
            assert name in hf_attributes.BASE_DEFAULTS and hf_attributes.BASE_DEFAULTS[name] == value, name
    assert set(transformers.GenerationConfig._get_default_generation_params()) <= hf_attributes.GENERATION
    # A config saved in full says nothing that is not understood.
    fields_of(LLAMA, **{n: v for n, v in base.to_dict().items() if n not in PUBLISHED[LLAMA]}).finish()


@pytest.mark.parametrize("family", pretrained.FAMILIES)
def test_the_table_of_names_that_are_read_is_that_of_transformers_code(transformers, family):
    """Every name that the family's code takes from the config is in the table, or neutral."""
    folder = Path(transformers.__file__).parent / "models" / family.removesuffix("_text")
    code = (folder / f"modeling_{folder.name}.py").read_text()
    read = set(re.findall(r"\bconfig\.([a-z_0-9]+)", code)) | set(
        re.findall(r"attr\(\w*\.?config, \"([a-z_0-9]+)", code)
    )
    other = {"get_text_config", "text_config", "vision_config", "image_token_id", "mm_tokens_per_image"}
    known = hf_attributes.FAMILY_READS[family] | hf_attributes.NEUTRAL | set(hf_attributes.SHARED_READS) | other
    assert read - known - set(hf_attributes.BASE_DEFAULTS) - hf_attributes.EITHER_WAY == set()
