"""A tiny random Llama with a tokenizer of its own, as a checkpoint folder."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jaxconcepts.models import llama, pretrained
from jaxconcepts.prompts import bitwise, facts, render


@pytest.fixture(scope="module", autouse=True)
def fast(compiles_fast):
    """Every study's tests compile fast."""


class Checkpoint(NamedTuple):
    """folder: what `model`, `params` and `tokenizer` were read from."""

    folder: Path
    model: Any
    params: Any
    tokenizer: Any


def write_tokenizer(folder, texts, vocab_size=80):
    """A byte-level BPE trained on the texts; returns it as transformers reads it back."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=["<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


def write_checkpoint(folder, texts, seed=0, **sizes) -> Checkpoint:
    tokenizer = write_tokenizer(folder, texts)
    sizes = {
        "width": 16, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_width": 24, "context": 256,
        "rope_scaling": None,
    } | sizes  # fmt: skip
    model = llama.LlamaConfig(vocab_size=len(tokenizer) + 4, stop_tokens=(tokenizer.eos_token_id,), **sizes)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(np.float32), shapes)
    pretrained.save_pretrained(model, params, folder)
    return Checkpoint(Path(folder), *pretrained.load_pretrained(folder), tokenizer)


@pytest.fixture(scope="session")
def bits2():
    """The bitwise family on two bits, in small pools."""
    return bitwise.family(bits=2, train=60, test=40)


@pytest.fixture(scope="session")
def bits3():
    """On three bits: 64 inputs, 12 of them asked."""
    return bitwise.family(bits=3, train=60, test=40)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, bits2):
    variants = [(concept, variant) for concept in bits2.labels for variant in render.VARIANTS]
    texts = [p.whole + "\n" for c, v in variants for p in render.prompts(bits2, c, 2, 5, seed=1, variant=v)]
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), texts)


@pytest.fixture(scope="session")
def facts_checkpoint(tmp_path_factory):
    """One whose tokenizer knows the letters of public facts."""
    family = facts.family()
    prompts = [p for concept in family.labels for p in render.prompts(family, concept, 2, 40, seed=1, variant="rule")]
    words = "\n".join(item for items in facts.LISTS.values() for item in items)
    return write_checkpoint(tmp_path_factory.mktemp("facts"), [words, *(p.whole + "\n" for p in prompts)])
