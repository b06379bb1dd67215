"""LoRA against the `peft` library: logits, five steps of AdamW, files, initialisation; and its dropout."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import (
    gemma2,
    gpt2,
    gpt_neox,
    language,
    layers,
    llama,
    mamba2,
    olmo,
    olmo2,
    phi3,
    pretrained,
    qwen2,
)
from jaxconcepts.training import answer_loss, lora

pytestmark = pytest.mark.usefixtures("compiles_fast")

SEVEN = {f"blocks/{name}" for name in ("q", "k", "v", "out", "gate", "up", "down")}
FUSED = {
    "gpt2": {f"blocks/{name}" for name in ("attn_qkv", "attn_out", "mlp_up", "mlp_down")},
    "gpt_neox": {f"blocks/{name}" for name in ("attn_qkv", "out", "up", "down")},
    "phi3": {f"blocks/{name}" for name in ("attn_qkv", "out", "gate_up", "down")},
    "mamba2": {"blocks/in_proj", "blocks/out_proj"},
}


def test_every_family_names_its_projections():
    found = {name: set(lora.projections(config)) for name, config in pretrained.FAMILIES.items()}
    assert found == {name: FUSED.get(name, SEVEN) for name in pretrained.FAMILIES}


def test_targets_by_our_names_or_the_checkpoints():
    assert lora.target_paths(llama.LlamaConfig, ("down_proj", "q")) == ["blocks/q", "blocks/down"]
    assert lora.target_paths(llama.LlamaConfig, ()) == ["blocks/q", "blocks/v"]
    for fused in (gpt2.GPT2Config, gpt_neox.GPTNeoXConfig, phi3.Phi3Config):
        assert lora.target_paths(fused, ()) == ["blocks/attn_qkv"]


@pytest.mark.parametrize(
    ("config", "target", "message"),
    [
        (
            llama.LlamaConfig,
            "query",
            r"llama has no projection 'query'; it has q \(q_proj\), k \(k_proj\)",
        ),
        (
            gpt2.GPT2Config,
            "q_proj",
            r"gpt2 has no projection 'q_proj'; it has attn_qkv \(c_attn\),",
        ),
        (llama.LlamaConfig, "embed", "llama has no projection 'embed'"),
    ],
)
def test_a_target_that_does_not_exist_is_named_with_those_that_do(config, target, message):
    with pytest.raises(ValueError, match=message):
        lora.target_paths(config, (target,))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "lora.rank must be a positive integer, got 0"),
        ({"alpha": -1.0}, "lora.alpha must be a positive number, got -1.0"),
        ({"dropout": 1.0}, "lora.dropout must be at least 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        lora.LoraConfig(**fields)


def grown(made, params, hparams, deviation=0.3):
    """Adapters whose b is not zero, so that they change something."""
    tuned = made.init(params, hparams).params
    add = lambda a: a + deviation * jax.random.normal(jax.random.key(1), a.shape)  # noqa: E731
    return jax.tree.map(add, tuned)


def peft_model(tiny_folder, adapter, trainable=True):
    pytest.importorskip("torch", reason="the reference implementation needs torch")
    peft = pytest.importorskip("peft", reason="the reference implementation is peft")
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a name that it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        base = AutoModelForCausalLM.from_pretrained(tiny_folder, attn_implementation="eager")
        return peft.PeftModel.from_pretrained(base, adapter, is_trainable=trainable)


def relative_error(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("arm", ["first-2", "blocks-1-3"])
def test_peft_reads_our_adapters_to_equal_logits_attached_and_merged(tiny, tmp_path, arm):
    config, made = tiny.make()
    hparams = tiny.numbers(config, arm)
    tuned = grown(made, tiny.params, hparams)
    lora.save_peft(tiny.lora, tiny.model, tuned, hparams.masks, tmp_path, str(tiny.folder))
    theirs = peft_model(tiny.folder, tmp_path, trainable=False)
    import torch

    tokens = tiny.data.tokens[:6]
    with torch.no_grad():
        attached = theirs(torch.tensor(tokens)).logits.numpy()
        merged = theirs.merge_and_unload()(torch.tensor(tokens)).logits.numpy()
    assert relative_error(language.logits(tiny.model, tiny.params, tokens), attached) > 0.1
    ours = language.logits(tiny.model, made.with_tuned(tiny.params, tuned, hparams), tokens)
    assert relative_error(ours, attached) < 1e-5
    plain = made.merged(tiny.params, tuned, hparams)
    assert relative_error(language.logits(tiny.model, plain, tokens), merged) < 1e-5
    pretrained.save_pretrained(tiny.model, plain, tmp_path / "merged")
    again = pretrained.load_pretrained(tmp_path / "merged")[1]
    jax.tree.map(np.testing.assert_array_equal, again, plain)


def test_merging_leaves_other_blocks_and_kernels_bit_for_bit(tiny):
    config, made = tiny.make()
    hparams = tiny.numbers(config, "blocks-2")
    plain = made.merged(tiny.params, grown(made, tiny.params, hparams), hparams)
    for path, leaf in jax.tree_util.tree_leaves_with_path(plain):
        name, before = jax.tree_util.keystr(path), tiny.params
        for key in path:
            before = before[key.key]
        same = np.asarray(leaf == before)
        if any(f"'{target}'" in name for target in ("q", "v", "down", "out")):
            assert same[[0, 2]].all() and same[1].mean() < 0.01, name
        else:
            assert same.all(), name


def labels_of(batch):
    """transformers' labels: the answer tokens at their own places, -100 elsewhere."""
    labels = np.full(batch.tokens.shape, -100)
    rows, columns = np.nonzero(batch.weights)
    labels[rows, np.asarray(batch.positions)[rows, columns] + 1] = np.asarray(batch.targets)[rows, columns]
    return labels


def test_five_steps_of_adamw_are_pefts(tiny, tmp_path):
    """From the same adapters (b = 0), with the same batches and weight decay; the second block's are left out."""
    config, made = tiny.make()
    hparams = tiny.numbers(config, "blocks-1-3", weight_decay=0.5)
    state = made.init(tiny.params, hparams)
    lora.save_peft(tiny.lora, tiny.model, state.params, hparams.masks, tmp_path, str(tiny.folder))
    theirs = peft_model(tiny.folder, tmp_path)
    import torch

    trained = {name: p for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 4 * 2
    adamw = torch.optim.AdamW(trained.values(), lr=3e-3, weight_decay=0.5, betas=(0.9, 0.999), eps=1e-8)
    expected = []
    for step in range(5):
        batch = answer_loss.batch_of_step(tiny.data, tiny.batch_size, hparams.seed, step)
        found = theirs(torch.tensor(np.asarray(batch.tokens)), labels=torch.tensor(labels_of(batch)))
        adamw.zero_grad()
        found.loss.backward()
        adamw.step()
        expected.append(found.loss.item())
    after, loss = made.chunk(state, hparams, tiny.params, tiny.data, np.int32(5))
    assert float(loss) == pytest.approx(np.mean(expected), abs=1e-4)
    modules = {module: path for path, module in lora.projections(tiny.model).items()}
    for name, weight in trained.items():
        module, _, letter = name.removeprefix("base_model.model.").partition(".lora_")
        block = int(module.split(".")[2])
        path = modules[module.replace(f".{block}.", ".{}.", 1)]
        ours = np.asarray(after.params[path][letter[0].lower()][block]).T
        start = np.asarray(state.params[path][letter[0].lower()][block]).T
        assert np.abs(ours - start).max() > 1e-3, name
        np.testing.assert_allclose(ours, weight.detach().numpy(), atol=1e-4, err_msg=name)


SMALL = {"vocab_size": 30, "width": 16, "layers": 2, "heads": 2, "context": 16}
PHI = phi3.Phi3Config(**SMALL, kv_heads=1, head_dim=8, mlp_width=24)
FUSED_MODELS = {
    "gpt2": (
        gpt2.GPT2Config(**SMALL), ("c_attn", "mlp_down"),
        ["transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_proj"],
    ),
    "gpt_neox": (
        gpt_neox.GPTNeoXConfig(**SMALL, mlp_width=24), ("query_key_value", "down"),
        ["gpt_neox.layers.1.attention.query_key_value", "gpt_neox.layers.1.mlp.dense_4h_to_h"],
    ),
    "phi3": (PHI, ("qkv_proj", "gate_up"), ["model.layers.1.mlp.gate_up_proj", "model.layers.1.self_attn.qkv_proj"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", FUSED_MODELS)
def test_adapters_of_fused_projections_are_pefts(tmp_path, family):
    """The projections of attention are one; GPT-2's are of Conv1D, whose matrices lie the other way round."""
    model, targets, modules = FUSED_MODELS[family]
    params = jax.tree.map(lambda a: a * 5, model.init(jax.random.key(0)))
    pretrained.save_pretrained(model, params, tmp_path / "base")
    config = lora.LoraConfig(rank=2, alpha=2.0, targets=targets)
    adapters = lora.init(config, model, params, jax.random.key(1))
    adapters = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(2), a.shape), adapters)
    lora.save_peft(config, model, adapters, {path: np.array([False, True]) for path in adapters}, tmp_path / "adapter")
    fields = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert fields["target_modules"] == modules
    tokens = np.arange(24).reshape(2, 12)
    theirs = peft_model(tmp_path / "base", tmp_path / "adapter", trainable=False)
    import torch

    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    scales = {path: np.array([0.0, config.scale]) for path in adapters}
    assert relative_error(language.logits(model, lora.attach(params, adapters, scales), tokens), expected) < 1e-5
    assert relative_error(language.logits(model, lora.merge(params, adapters, scales), tokens), expected) < 1e-5


def test_no_adapter_cannot_be_saved(tiny, tmp_path):
    adapters = lora.init(tiny.lora, tiny.model, tiny.params, jax.random.key(0))
    with pytest.raises(ValueError, match="at least one block"):
        lora.save_peft(tiny.lora, tiny.model, adapters, {path: np.zeros(3, bool) for path in adapters}, tmp_path)


def test_initial_adapters_are_distributed_as_pefts():
    """a uniform in +-1 / sqrt(inputs), b zero; every block and projection draws its own."""
    model = llama.LlamaConfig(
        vocab_size=8, width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_width=96, context=8, rope_scaling=None
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    adapters = lora.init(lora.LoraConfig(rank=32, targets=("q", "k", "down")), model, shapes, jax.random.key(0))
    assert {path: pair["a"].shape for path, pair in adapters.items()} == {
        "blocks/q": (2, 64, 32), "blocks/k": (2, 64, 32), "blocks/down": (2, 96, 32)
    }  # fmt: skip
    for pair in adapters.values():
        a, bound = np.asarray(pair["a"]), pair["a"].shape[1] ** -0.5
        assert np.abs(a).max() <= bound and np.abs(a).max() > 0.99 * bound
        # The standard error of the variance is about 1 % of it.
        assert a.var() == pytest.approx(bound**2 / 3, rel=0.05) and abs(a.mean()) < 0.05 * bound
        assert not np.any(pair["b"])
        assert not np.array_equal(a[0], a[1])
    assert not np.array_equal(adapters["blocks/q"]["a"], adapters["blocks/k"]["a"])


def test_dropout_keeps_its_share_and_scales_what_it_keeps():
    """With a = b = 1 x 1 and x = 1 the product is 0 or 1 / (1 - rate)."""
    count, rate = 40_000, 0.3
    one = jnp.ones((1, 1))
    pair = layers.LowRank(one, one, jnp.float32(2), jax.random.key(0), jnp.float32(rate))
    found = np.asarray(layers.low_rank_product(jnp.ones((count, 1)), pair))[:, 0]
    kept = found != 0
    np.testing.assert_allclose(found[kept], 2 / (1 - rate), rtol=1e-6)
    # Four standard errors of the share.
    assert abs(kept.mean() - (1 - rate)) < 4 * (rate * (1 - rate) / count) ** 0.5
    # Neighbouring entries are independent: the share of pairs kept is the square.
    both = (kept[:-1] & kept[1:]).mean()
    assert abs(both - (1 - rate) ** 2) < 4 * 0.5 / count**0.5


def test_every_block_and_projection_drops_other_inputs_and_only_in_training(tiny):
    config, made = tiny.make(lora=lora.LoraConfig(rank=2, dropout=0.5, targets=("q", "v")))
    hparams = tiny.numbers(config, "all")
    tuned = grown(made, tiny.params, hparams)
    scales = {path: np.ones(3, np.float32) for path in tuned}
    keys = [
        jax.random.key_data(
            lora.attach(tiny.params, tuned, scales, jax.random.key(k), 0.5)["blocks"][n]["low_rank"].key
        )
        for k in (0, 1)
        for n in ("q", "v")
    ]
    assert len(np.unique(np.concatenate(keys), axis=0)) == 2 * 2 * 3
    assert lora.attach(tiny.params, tuned, scales)["blocks"]["q"]["low_rank"].key is None
    state = made.init(tiny.params, hparams)._replace(params=tuned)
    still = hparams._replace(optimizer=hparams.optimizer._replace(learning_rate=np.float32(0)))
    losses = []
    for step in (0, 1):
        # The same batch in both steps: the seed's stream has 5 batches an epoch of 22 examples.
        state = state._replace(step=np.int32(step))
        batch = tiny.data._replace(**{n: np.repeat(a[:1], 22, 0) for n, a in tiny.data._asdict().items()})
        losses.append(float(made.chunk(state, still, tiny.params, batch, np.int32(1))[1]))
    assert losses[0] != losses[1]


SIZES = {
    "vocab_size": 30, "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 24,
    "context": 16,
}  # fmt: skip


WHOLE = {
    "gemma2": gemma2.Gemma2Config(**SIZES), "olmo": olmo.OlmoConfig(**SIZES), "olmo2": olmo2.Olmo2Config(**SIZES),
    "qwen2": qwen2.Qwen2Config(**SIZES), "phi3": phi3.Phi3Config(**SIZES),
    "gpt_neox": gpt_neox.GPTNeoXConfig(**SMALL, mlp_width=24),
    "mamba2": mamba2.Mamba2Config(vocab_size=30, width=16, layers=2, heads=4, head_dim=8, state=8),
}  # fmt: skip


@pytest.mark.parametrize("model", WHOLE.values(), ids=WHOLE.keys())
def test_every_family_runs_with_all_its_adapters_attached_as_merged(model):
    """The merged model is a plain one, which tests/models hold against transformers."""
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.3, leaf.shape), jnp.float32)  # noqa: E731
    params = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))
    targets = tuple(path.rpartition("/")[2] for path in lora.projections(model))
    setting = lora.LoraConfig(rank=3, targets=targets)
    adapters = jax.tree.map(draw, jax.eval_shape(lambda: lora.init(setting, model, params, jax.random.key(0))))
    scales = {path: np.array([setting.scale, 0.0]) for path in adapters}
    tokens = np.arange(20).reshape(2, 10)
    attached = language.logits(model, lora.attach(params, adapters, scales), tokens)
    merged = np.asarray(language.logits(model, lora.merge(params, adapters, scales), tokens))
    assert len(adapters) == len(lora.projections(model)) and relative_error(attached, merged) < 1e-5
    assert relative_error(language.logits(model, params, tokens), merged) > 0.05
