"""A language model trained from its first weights: what counts in its prompts, its folders, its resumption."""

import os
import re
import signal

import jax
import numpy as np
import pytest

import jaxconcepts as jc
from jaxconcepts import __main__, store
from jaxconcepts.commands import command_line, config_files
from jaxconcepts.experiments import prompt_corpus
from jaxconcepts.prompts import bitwise, render
from jaxconcepts.runs import loop
from jaxconcepts.runs.preemption import PreemptedError
from jaxconcepts.studies.icl import from_scratch
from jaxconcepts.training import initial
from jaxconcepts.training.train import TrainConfig

TEMPLATE = render.Template()
NUMBERS = {
    "learning_rate": 2e-2, "weight_decay": 0.0, "b1": 0.9, "b2": 0.99, "eps": 1e-8, "clip_norm": 1.0
}  # fmt: skip
MODEL = {
    "width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "mlp_width": 32, "context": 128, "rope_theta": 1000.0
}  # fmt: skip


def config(steps=40, **fields):
    corpus = from_scratch.CorpusConfig(prompts=200, shots=2, vocab_size=300)
    train = TrainConfig(steps=steps, batch_size=8, optimizer="muon", schedule="linear")
    return from_scratch.FromScratchConfig(corpus, train, MODEL, NUMBERS, checkpoint_steps=(0, 10), **fields)


def train(config, families, workdir):
    prepared = from_scratch.prepare(config, families)
    with store.open_run(workdir, {"c": 1}, keep_steps=config.saved_steps) as run:
        return from_scratch.train(config, prepared, run)


@pytest.fixture(scope="module")
def family():
    return bitwise.family(bits=3, train=200, test=40)


@pytest.fixture(scope="module")
def trained(family, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, train(config(), [family], workdir)


def test_every_answer_counts_and_nothing_else(family):
    prompts = prompt_corpus.draw([family], 3, 140, seed=0, variants=("plain", "name"), template=TEMPLATE)
    tokenizer = prompt_corpus.train_tokenizer([p.whole for p in prompts], 300)
    data = prompt_corpus.examples(tokenizer, prompts, TEMPLATE, 256)
    for row, prompt in enumerate(prompts):
        counted = data.weights[row] > 0
        text = tokenizer.decode(data.targets[row][counted])
        # From the text alone: what stands between "Output:" and the end of the separator, four times.
        assert text == "".join(re.findall(r"Output:( [01]+\n\n)", prompt.whole + "\n\n"))
        places = data.positions[row][counted]
        np.testing.assert_array_equal(data.tokens[row][places + 1], data.targets[row][counted])
    assert len({prompt.text for prompt in prompts}) == len(prompts)


def test_digits_are_tokens_of_their_own(family):
    prompts = prompt_corpus.draw([family], 2, 70, seed=0, variants=("plain",), template=TEMPLATE)
    tokenizer = prompt_corpus.train_tokenizer([p.whole for p in prompts], 400)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(" 011 100")["input_ids"])
    assert tokens == ["Ġ", "0", "1", "1", "Ġ", "1", "0", "0"]


def test_prompts_are_balanced_over_families_and_concepts(family):
    other = bitwise.family(bits=4, train=200, test=40, seed=1)
    prompts = prompt_corpus.draw([family, other], 1, 280, seed=0, variants=("plain",), template=TEMPLATE)
    counts = {}
    for prompt in prompts:
        key = prompt.concept, len(prompt.answer)
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 14 and set(counts.values()) == {20}


def test_the_loss_falls_and_the_folders_load_in_transformers(trained):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    workdir, saved = trained
    assert list(saved) == [0, 10, 40]
    losses = store.metrics(workdir).filter(metric="train_loss").sort("step")["value"].to_list()
    # Guessing among all tokens costs log(300) = 5.7 nats, among those that answers consist of about 1.2.
    assert losses[-1] < 3 < losses[0]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(saved[40], dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved[40])
    model, params = jc.load_pretrained(saved[40])
    ids = [tokenizer.bos_token_id, *tokenizer("Input: 011 001\nOutput:", add_special_tokens=False)["input_ids"]]
    expected = theirs(torch.tensor([ids])).logits.detach().numpy()
    np.testing.assert_allclose(jc.logits(model, params, np.array([ids])), expected, rtol=1e-4, atol=1e-4)


def test_a_stopped_training_goes_on_to_the_same_folders(family, trained, tmp_path, monkeypatch):
    stop = lambda *_: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    monkeypatch.setattr(loop.Progress, "update", stop)
    with pytest.raises(PreemptedError):
        train(config(), [family], tmp_path)
    monkeypatch.undo()
    again = train(config(), [family], tmp_path)
    workdir, saved = trained
    for step in saved:
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (again[step] / name).read_bytes() == (saved[step] / name).read_bytes(), (step, name)
    tables = [store.metrics(folder).sort("step") for folder in (workdir, tmp_path)]
    assert tables[0].equals(tables[1])  # Though it was stopped within a row of the training loss.


def test_a_finished_training_only_returns_its_folders(family, trained):
    workdir, saved = trained
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.safetensors")}
    assert train(config(), [family], workdir) == saved
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*.safetensors")}


def test_matrices_begin_with_deviation_by_their_inputs():
    model = from_scratch.make_model(config(), 300)
    params = initial.fan_in(model, jax.random.key(0))
    for name, inputs, shrink in (("q", 16, 1.0), ("down", 32, 0.5), ("out", 16, 0.5)):
        np.testing.assert_allclose(params["blocks"][name]["kernel"].std(), inputs**-0.5 * shrink, rtol=0.12)


def from_fields(**fields):
    return from_scratch.from_fields(fields)


def test_the_config_that_comes_with_the_package_is_read():
    values = config_files.load("icl_from_scratch").values
    training, study = from_scratch.from_fields(values)
    assert (training.train.optimizer, training.train.steps, study.shots) == ("muon", 3000, (1, 2, 4))
    assert training.numbers["learning_rate"] == 7e-3 and set(training.numbers) == set(NUMBERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: from_fields(corpus={"prompts": 0}), "corpus.prompts must be an integer from 1 to 10000000, got 0"),
        (
            lambda: from_fields(corpus={"variants": ["x"]}),
            "corpus.variants must be a tuple, each element one of plain, rule, name, got 'x'",
        ),
        (
            lambda: from_fields(train={"optimizer": "sgd"}),
            "train.optimizer must be one of adam, ",
        ),
        (lambda: from_fields(model={"heads": 3}), "model.heads must divide width = 64, got 3"),
        (lambda: from_fields(checkpoint_steps=[2000]), "checkpoint_steps must be at most train.steps = 1000, got 2000"),
        (lambda: TrainConfig(steps=0), "train.steps must be an integer of at least 1, got 0"),
        (lambda: config(steps=5), "checkpoint_steps must be integers from 0 to train.steps = 5"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        change()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.model.context=16"], "the model's context is 16"),
        (["--config.train.batch_size=500"], "corpus.prompts must be at least train.batch_size = 500"),
        (["--config.study.pos.corpus=/nowhere.conllu", "--config.study.families=pos"], "/nowhere.conllu"),
        (
            ["--config.model.layers=1024", "--config.model.width=65536"],
            r"does not fit on one device: \d+(_\d{3}){4} bytes",
        ),
    ],
)
def test_nothing_is_written_before_the_corpus_and_the_sizes_are_checked(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.setattr(command_line, "make_cpu_devices", lambda count: None)
    small = ["--config.corpus.prompts=200", "--config.corpus.shots=2", "--config.study.families=bitwise"]
    small += ["--config.study.bitwise.bits=3", "--config.study.bitwise.train=60", "--config.study.bitwise.test=40"]
    command = ["jaxconcepts", "icl_from_scratch", "--config=icl_from_scratch", f"--workdir={tmp_path}/run"]
    assert __main__.main([*command, *small, *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and re.search(message, error), error
    assert not (tmp_path / "run").exists()
