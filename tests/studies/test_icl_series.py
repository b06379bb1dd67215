"""The in-context study along pretraining, on made-up GPT-NeoX checkpoints by revision; and through transformers."""

import shutil
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

import jaxconcepts as jc
from jaxconcepts import store
from jaxconcepts.figures.icl import curves
from jaxconcepts.figures.icl import tables as icl_tables
from jaxconcepts.models import gpt_neox, pretrained
from jaxconcepts.prompts import render
from jaxconcepts.studies.asking import checkpoints
from jaxconcepts.studies.extraction import study as extraction
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl import study as icl
from tests.studies.conftest import write_tokenizer

CONFIG = icl.IclConfig(
    families=("bitwise",), shots=(1,), variants=("plain",), prompts=12, per_draw=6, draws=1, k=3, permutations=5,
    batch_size=84, multiple=64, bitwise=icl_config.BitwiseConfig(bits=3, train=60, test=40),
)  # fmt: skip


def texts():
    family = icl_config.families(CONFIG)["bitwise"]
    return [p.whole + "\n" for concept in family.labels for p in render.prompts(family, concept, 2, 5, seed=1)]


@pytest.fixture(scope="module")
def pythia(tmp_path_factory):
    """step -> a folder of a tiny GPT-NeoX."""
    folders = {}
    for step in (0, 512):
        folders[step] = tmp_path_factory.mktemp(f"step{step}")
        tokenizer = write_tokenizer(folders[step], texts())
        model = gpt_neox.GPTNeoXConfig(
            width=16, layers=2, heads=2, mlp_width=32, context=128, vocab_size=len(tokenizer), stop_tokens=()
        )
        pretrained.save_pretrained(model, model.init(jax.random.key(step)), folders[step])
    return folders


@pytest.mark.slow
def test_a_series_of_revisions_draws_cd_accuracy_and_loss_over_pretraining(pythia, tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repo, revision, cache_dir=None, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise FileNotFoundError("not in the machine's cache")
        asked.append((repo, revision))
        return shutil.copytree(pythia[int(revision.removeprefix("step"))], Path(cache_dir) / revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    root = icl.run(CONFIG, checkpoints.series("pythia-160m@step{512,0}"), tmp_path / "run")
    assert asked == [("EleutherAI/pythia-160m", "step0"), ("EleutherAI/pythia-160m", "step512")]
    tables = icl_tables.load(root)
    assert tables.steps == [0, 512] and tables.models["model_type"].unique().to_list() == ["gpt_neox"]
    drawn = {line.get_gid(): line for axis in curves.over_checkpoints(tables).axes for line in axis.lines}
    for concept in (0, 5):
        own = tables.metrics.filter(metric="log_prob", concept=concept, other=concept).sort("step")["value"]
        np.testing.assert_allclose(drawn[f"bitwise/loss/{concept}"].get_ydata(), -own)
        assert drawn[f"bitwise/cd/{concept}"].get_xdata().tolist() == [0, 512]
        assert len(drawn[f"bitwise/accuracy/{concept}"].get_ydata()) == 2


def test_revisions_in_braces_are_read():
    found = checkpoints.series("allenai/OLMo@step{1000,20}-tokens")
    assert [(c.step, c.source, c.revision) for c in found] == [
        (1000, "allenai/OLMo", "step1000-tokens"),
        (20, "allenai/OLMo", "step20-tokens"),
    ]
    with pytest.raises(ValueError, match=r"SOURCE@step\{0,512,...\}.*got 'a/b@step\{0'"):
        checkpoints.series("a/b@step{0,x}")


@pytest.mark.slow
def test_a_model_of_no_family_goes_through_transformers_into_study_and_store(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = write_tokenizer(tmp_path / "bloom", texts())
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(tokenizer), "eos_token_id": 1}
    module = transformers.AutoModelForCausalLM.from_config(transformers.BloomConfig(**sizes)).eval()
    module.save_pretrained(tmp_path / "bloom")
    source = icl.Checkpoint(0, str(tmp_path / "bloom"), through="transformers")
    root = icl.run(CONFIG, [source], tmp_path / "run")
    table = store.results(root, "icl", "metrics")
    assert table["checkpoint"].unique().to_list() == ["bloom through transformers"]
    assert store.results(root, "icl", "models")["model_type"].to_list() == ["bloom through transformers"]
    assert table.filter(pl.col("metric") == "cd", pl.col("concept").is_null()).height == 3
    assert table.filter(metric="cd_untrained").height > 0

    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Input: 011"}\n{"prompt": "Input: 1 100"}\n')
    config = extraction.ExtractConfig(
        str(tmp_path / "bloom"), str(tmp_path / "prompts.jsonl"), True, through="transformers"
    )
    states = extraction.extract(config, tmp_path / "states")
    record = store.config(states)
    assert (record["through"], record["attention"]) == ("transformers", "transformers")
    model = jc.load(tmp_path / "bloom", through="transformers")
    rows = {row["line"]: row["row"] for row in extraction.prompts(states).iter_rows(named=True)}
    array = extraction.hidden_states(states).read().result()
    for line, prompt in enumerate(("Input: 011", "Input: 1 100")):
        expected = model.hidden_states([prompt], bos=True)[:, 0]
        np.testing.assert_allclose(array[rows[line + min(rows)]], expected, atol=1e-6)
