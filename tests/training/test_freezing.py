"""Patterns that say what is trained."""

import jax
import numpy as np
import pytest

from jaxconcepts.models import llama
from jaxconcepts.training import freezing

MODEL = llama.LlamaConfig(
    vocab_size=8, width=8, layers=12, heads=2, kv_heads=1, head_dim=4, mlp_width=8, context=8, rope_scaling=None
)
SHAPES = jax.eval_shape(MODEL.init, jax.random.key(0))


def test_the_first_pattern_that_matches_decides_row_by_row():
    found = freezing.masks(
        [(r"blocks/(1|11)/q/.*", "train"), (r".*/(k|q)/kernel", "freeze"), ("blocks/.*", "train"), (".*", "freeze")],
        SHAPES,
    )
    assert np.flatnonzero(found["blocks/q/kernel"]).tolist() == [0, 10]
    assert not found["blocks/k/kernel"].any() and found["blocks/v/kernel"].all()
    assert found["blocks/attn_norm/scale"].shape == (12,)
    assert not found["embed"] and not found["final_norm/scale"]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ([("blocks/.*", "train"), ("embed", "freeze")], "none matches final_norm/scale, unembed; end the list"),
        ([("blocks/[0-9]/.*", "train"), ("(un)?embed|final.*", "freeze")], "none matches blocks/10/.* more"),
        ([("blocks/13/.*", "train"), (".*", "freeze")], r"'blocks/13/\.\*' matches no parameter; p.* blocks/<1 to 12>"),
        ([("blocks/q/.*", "train"), (".*", "freeze")], "matches no parameter"),
        ([("blocks/1/.*", "tune"), (".*", "freeze")], "must say \"train\" or \"freeze\", got 'tune'"),
        ([("blocks/(", "train"), (".*", "freeze")], "must be .regular expression"),
        ([("blocks/1/.*",), (".*", "freeze")], "must be .regular expression"),
    ],
)  # fmt: skip
def test_bad_patterns_are_named(patterns, message):
    with pytest.raises(ValueError, match=message):
        freezing.masks(patterns, SHAPES)


def test_a_pattern_that_only_others_pre_empt_is_no_error():
    assert freezing.masks([("blocks/.*", "train"), ("blocks/3/.*", "freeze"), (".*", "freeze")], SHAPES)


@pytest.mark.parametrize(
    ("arm", "blocks"),
    [
        ("first-10", list(range(1, 11))), ("last-2", [11, 12]), ("all", list(range(1, 13))), ("none", []),
        ("blocks-1-11", [1, 11]), ("first-12", list(range(1, 13))),
    ],
)  # fmt: skip
def test_arms(arm, blocks):
    found = freezing.masks(freezing.arm(arm, 12), SHAPES)
    assert freezing.trained_blocks(found) == blocks
    assert not any(mask for path, mask in found.items() if not path.startswith("blocks/"))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("first-13", "'first-13': the model has 12 blocks, so n must be 1 to 12"),
        ("last-0", "n must be 1 to 12"),
        ("blocks-3-13", "there is no block 13; the model's blocks are 1 to 12"),
        ("blocks-0", "there is no block 0; the model's blocks are 1 to 12"),
        ("blocks-3-3", "a block is given twice"),
        ("middle", 'an arm must be "first-n", "last-n", "all", "none" or "blocks-2-5-7", got \'middle\''),
        ("first", "an arm must be"),
        ("blocks-", "an arm must be"),
    ],
)
def test_arms_that_do_not_exist_are_named(arm, message):
    with pytest.raises(ValueError, match=message):
        freezing.arm(arm, 12)
