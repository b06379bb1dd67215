"""The causal study of language models against loops of forward hooks in PyTorch, on a tiny Llama."""

import dataclasses
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.__main__ import main
from jaxconcepts.models import gemma2, gemma3, gpt2, mamba2, pretrained
from jaxconcepts.prompts import render
from jaxconcepts.studies.causal import contrasts, interchange
from jaxconcepts.studies.causal import edited_pass as causal_pass
from jaxconcepts.studies.causal import experiments as causal_experiments
from jaxconcepts.studies.causal import study as causal
from jaxconcepts.studies.causal.config import CausalConfig, default_fields, from_fields
from jaxconcepts.studies.icl.config import BitwiseConfig

CONFIG = CausalConfig(
    families=("bitwise",), shots=1, per_replicate=2, replicates=2, for_means=3, develop=2, effects=2, steered=2,
    ablated=2, pairs=2, batch_size=6, scales=(2.0,), bitwise=BitwiseConfig(bits=2, train=60, test=40),
)  # fmt: skip


TUNING = default_fields()["tuning"] | {"arms": ("all",)}


@pytest.fixture(scope="module")
def session(checkpoint):
    return causal_pass.Session(CONFIG, checkpoint.model, checkpoint.params, checkpoint.tokenizer)


@pytest.fixture(scope="module")
def asked(session, bits2):
    """Prompts of two concepts and two lengths."""
    prompts = [*render.prompts(bits2, "AND", 1, 3, seed=0), *render.prompts(bits2, "XOR", 2, 2, seed=0)]
    return causal_pass.encode(session, bits2, prompts, {"AND": "XOR", "XOR": "AND"})


@pytest.fixture(scope="module")
def theirs(checkpoint):
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder, attn_implementation="eager").eval()
    return torch, model


def module_of(model, layer):
    """What has the stream after a layer as its output."""
    return model.model.embed_tokens if layer == 0 else model.model.layers[layer - 1]


def loop(theirs, ids, new, hooks):
    """Greedy answer and all first logits of one prompt, hooks acting on the prompt's positions alone.

    The whole sequence runs again for every token: the name of the argument for a cache depends on the release.
    """
    torch, model = theirs
    handles = [register(model, len(ids)) for register in hooks]
    answer, first = [], None
    for _ in range(new):
        with torch.no_grad():
            last = model(torch.tensor([ids + answer]), use_cache=False).logits[0, -1]
        first = last if first is None else first
        answer.append(int(last.argmax()))
    for handle in handles:
        handle.remove()
    return answer, first


def replace_last(layer, value):
    def register(model, length):
        def hook(_, __, output):
            output = output.clone()
            output[:, length - 1] = output.new_tensor(value)
            return output

        return module_of(model, layer).register_forward_hook(hook)

    return register


def add_last(layer, value):
    def register(model, length):
        def hook(_, __, output):
            output = output.clone()
            output[:, length - 1] += output.new_tensor(value)
            return output

        return module_of(model, layer).register_forward_hook(hook)

    return register


def set_head(block, head, value, at_last):
    def register(model, length):
        def hook(_, given):
            heads = given[0].clone()
            heads[:, (length - 1 if at_last else 0) : length, 8 * head : 8 * head + 8] = heads.new_tensor(value)
            return (heads,)

        return model.model.layers[block].self_attn.o_proj.register_forward_pre_hook(hook)

    return register


def drawn(*shape):
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def changes(model):
    mask = np.zeros((2, 4), bool)
    mask[1, 2] = True
    outputs = drawn(2, 4, 8)
    return {
        "none": (None, []),
        "replace": (causal_pass.replaced(model, 1, drawn(16)), [replace_last(1, drawn(16))]),
        "replace the embeddings": (causal_pass.replaced(model, 0, drawn(16)), [replace_last(0, drawn(16))]),
        "add": (causal_pass.added(model, 1, 3 * drawn(16)), [add_last(1, 3 * drawn(16))]),
        "ablate a head": (causal_pass.with_heads(model, mask, 0.0, False), [set_head(1, 2, 0.0, False)]),
        "patch a head": (causal_pass.with_heads(model, mask, outputs, True), [set_head(1, 2, outputs[1, 2], True)]),
    }


@pytest.mark.parametrize("name", ["none", "replace", "replace the embeddings", "add", "ablate a head", "patch a head"])
def test_answers_under_a_change_equal_a_loop_of_hooks_in_pytorch(session, asked, theirs, name):
    """Greedy answers, several tokens long, and the first answer token's probability."""
    change, hooks = changes(session.model)[name]
    found = causal_pass.ask(session, asked, change)
    plain, under = causal_pass.log_probs(session, asked, [None, change])
    stops = causal_pass.answers.stop_tokens(session.tokenizer, session.model, "\n")
    budget = asked.continuations.shape[2] + causal_pass.answers.SPARE
    torch = theirs[0]
    for i, ids in enumerate(asked.ids):
        answer, logits = loop(theirs, list(ids), budget, hooks)
        assert found.texts[i] == causal_pass.answers.read(session.tokenizer, np.array(answer), stops)
        if asked.continuation_lengths[i, 0] == 1:
            expected = float(torch.log_softmax(logits, -1)[asked.continuations[i, 0, 0]])
            assert under[i, 0] == pytest.approx(expected, abs=1e-4)
    if change is not None:
        assert np.nanmax(np.abs(under - plain)) > 1e-3


@pytest.mark.parametrize("family", [gpt2.GPT2Config, gemma2.Gemma2Config, gemma3.Gemma3Config])
def test_the_last_token_on_what_the_others_left_is_as_the_whole_prompt(family):
    """Of models with learned positions, and with layers that reach three tokens back."""
    sizes = {"vocab_size": 64, "width": 16, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 8, "context": 32}
    sizes |= {"window": 3, "mlp_width": 24}
    model = family(**{name: size for name, size in sizes.items() if name in family.__dataclass_fields__})
    params = jax.tree.map(lambda a: a + 0.3 * drawn(*a.shape), model.init(jax.random.key(0)))
    rng, lengths = np.random.default_rng(1), np.array([9, 4, 1], np.int32)
    tokens = rng.integers(0, 64, (3, 12), np.int32)
    continuations = (rng.integers(0, 64, (3, 2, 3), np.int32), np.array([[3, 1], [2, 2], [1, 3]], np.int32))
    change = causal_pass.with_heads(
        model, rng.random((3, model.heads)) < 0.5, drawn(3, 4, model.head_dim), at_last=True
    )
    change = change._replace(
        add_layer=np.int32(1), direction=drawn(3, 16), replace_layer=np.int32(2), states=drawn(3, 16)
    )
    for wanted in (causal_pass.scoring.Wanted(False, 4, ()), causal_pass.scoring.Wanted(False, 0, ())):
        given = (tokens, lengths, None if wanted.max_new_tokens else continuations, change, wanted)
        whole = causal_pass._asked(model, params, *given)
        before = causal_pass._before_last(model, params, tokens, lengths)
        found = causal_pass._asked_last(model, params, before, *given)
        if wanted.max_new_tokens:
            np.testing.assert_array_equal(found.answers, whole.answers)
        else:
            np.testing.assert_allclose(found.log_probs, whole.log_probs, rtol=1e-4, atol=1e-4)


def test_prompts_end_where_their_answer_begins_to_say_something(session, asked):
    tokenizer = session.tokenizer
    for i, prompt in enumerate(asked.prompts):
        answer = asked.continuations[i, 0, : asked.continuation_lengths[i, 0]].tolist()
        assert tokenizer.decode([answer[0]]).strip()
        whole = tokenizer.decode([*asked.ids[i][1:], *answer], clean_up_tokenization_spaces=False)
        assert whole == prompt.whole
    blank = tokenizer.encode(" ", add_special_tokens=False)
    cut = causal_pass._without_blanks(session, [5], [*blank, 7, 8], [*blank, 9])
    assert cut == ([5, *blank], [7, 8], [9])
    assert causal_pass._without_blanks(session, [5], [7, *blank], [7, 9]) == ([5], [7, *blank], [7, 9])


def test_states_and_head_outputs_are_those_of_the_reference(session, asked, theirs):
    torch, model = theirs
    found = causal_pass.capture(session, asked)
    for i, ids in enumerate(asked.ids):
        seen = []
        watch = [
            block.self_attn.o_proj.register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0][0].numpy())
            )
            for block in model.model.layers
        ]
        with torch.no_grad():
            states = model(torch.tensor([list(ids)]), output_hidden_states=True).hidden_states
        for handle in watch:
            handle.remove()
        for layer in range(2):
            np.testing.assert_allclose(found.states[layer, i], states[layer][0, -1], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found.heads[layer, i].ravel(), seen[layer][-1], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(found.heads_mean[layer, i].ravel(), seen[layer].mean(0), rtol=1e-3, atol=1e-4)


def test_interchange_equals_a_loop_of_hooks_in_pytorch(session, theirs):
    torch, model = theirs
    rng = np.random.default_rng(0)
    # Three parts of eight tokens; the second prompt ends in the first.
    lengths, ends = np.array([23, 5]), np.array([[3, 4], [9, 2]])
    clean, corrupted = rng.integers(0, session.model.vocab_size, (2, 2, 24))
    found = interchange.interchange(session.model, session.params, clean, corrupted, lengths, ends)
    for row, length in enumerate(lengths):
        with torch.no_grad():
            states = model(torch.tensor(clean[row : row + 1, :length]), output_hidden_states=True).hidden_states
        for layer, position in [(0, 2), (1, 3), (0, max(length - 8, 0)), (1, max(length - 8, 0)), (1, length - 1)]:

            def patch(_, __, output, layer=layer, position=position, states=states):
                output = output.clone()
                output[:, position] = states[layer][:, position]
                return output

            handle = module_of(model, layer).register_forward_hook(patch)
            with torch.no_grad():
                logits = model(torch.tensor(corrupted[row : row + 1, :length])).logits[0, -1]
            handle.remove()
            expected = float(logits[ends[row, 0]] - logits[ends[row, 1]])
            assert float(found.patched[layer, position, row]) == pytest.approx(expected, abs=1e-4)
    # The last layer at the last token is the clean run; past a prompt's end nothing changes.
    np.testing.assert_allclose(found.normalised()[2, lengths - 1, [0, 1]], 1.0, rtol=1e-4)
    np.testing.assert_allclose(found.patched[:, 5:, 1], np.broadcast_to(found.corrupted[1], (3, 19)), rtol=1e-4)


def test_a_function_vector_is_what_the_heads_write(session, asked):
    """Their outputs through the output projection: the stream after the block, less what it is without those heads."""
    found = causal_pass.capture(session, asked)
    mean = found.heads[:, 0]
    vector = causal_experiments.function_vector(session, mean, [0, 3, 5])
    kernel = np.asarray(session.params["blocks"]["out"]["kernel"])
    expected = mean[0, 0] @ kernel[0, :8] + mean[0, 3] @ kernel[0, 24:32] + mean[1, 1] @ kernel[1, 8:16]
    np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_labels_are_shuffled_among_the_demonstrations_alone(bits2):
    (prompt,) = render.prompts(bits2, "XOR", 6, 1, seed=0)
    other = contrasts.shuffled(prompt, render.Template(), seed=1)
    assert other.text != prompt.text and other.answer == prompt.answer and other.query == prompt.query
    assert sorted(e.output for e in other.demonstrations) == sorted(e.output for e in prompt.demonstrations)
    assert [e.input for e in other.demonstrations] == [e.input for e in prompt.demonstrations]
    same = contrasts.with_demonstrations(prompt, render.Template(), prompt.demonstrations)
    assert same.text == prompt.text


@pytest.fixture
def half_known(monkeypatch):
    """As if every second prompt were answered rightly, and none of NAND."""
    honest = causal_pass.ask

    def ask(session, asked, change=None, what=""):
        found = honest(session, asked, change, what)
        correct = np.array([i % 2 == 0 and p.concept != "NAND" for i, p in enumerate(asked.prompts)])
        return found._replace(correct=correct)

    monkeypatch.setattr(causal_pass, "ask", ask)


def test_the_whole_study_is_stored_once_and_names_what_it_skips(checkpoint, half_known, tmp_path, caplog):
    with caplog.at_level("INFO", logger="jaxconcepts"):
        causal.run(CONFIG, str(checkpoint.folder), tmp_path)
    assert "bitwise: NAND is skipped: none of its 3 prompts has a correct answer" in caplog.text
    assert "bitwise: 5 concepts, 1 skipped" in caplog.text
    concepts = store.results(tmp_path, "causal", "concepts")
    assert concepts.filter(~pl.col("used")).rows() == [("bitwise", "NAND", 0, False)]
    assert concepts.filter(concept="Null")["behind_mean"].item() == 3
    model = store.results(tmp_path, "causal", "models").row(0, named=True)
    assert (model["checkpoint"], model["model_type"], model["layers"]) == (checkpoint.folder.name, "llama", 2)
    tables = {name: store.results(tmp_path, "causal", name) for name in CONFIG.experiments}
    used = ["AND", "OR", "NOR", "XOR", "XNOR"]
    patched = tables["patching"].filter(metric="accuracy")
    assert set(patched["condition"]) == {"none", "positive", "negative", "other", "random"}
    for condition in ("positive", "negative", "other", "random"):
        rows = patched.filter(condition=condition)
        assert rows.select("layer", "concept", "replicate").n_unique() == rows.height == 3 * 5 * 2
        ends = tables["patching"].filter(pl.col("metric").str.contains("^accuracy_(low|high)$"), condition=condition)
        assert ends.select("layer", "concept", "metric").n_unique() == ends.height == 3 * (5 + 1) * 2
    assert list(dict.fromkeys(patched["concept"])) == used
    vectors = tables["task_vectors"].filter(metric="accuracy")
    assert vectors.filter(condition="develop").height == 3 * 5 and vectors.filter(condition="task vector").height == 10
    effects = tables["function_vectors"]
    assert effects.filter(condition="effect").height == 2 * 4 * 5 and effects.filter(condition="top").height == 4
    strongest = effects.filter(condition="effect").group_by("layer", "head").agg(pl.mean("value")).sort("value")[-1]
    first = effects.filter(condition="top", value=0.0)
    assert strongest.select("layer", "head").rows() == first.select("layer", "head").rows()
    assert tables["steering"].filter(condition="steered", metric="accuracy").height == 3 * 5 * 1
    assert tables["heads"].filter(metric="accuracy", condition="mean").height == 2 * 4 * 5
    assert all(table["value"].is_finite().all() for table in tables.values())
    causal.run(CONFIG, str(checkpoint.folder), tmp_path)
    with pytest.raises(ValueError, match="another config: shots: was 1, now 2"):
        causal.run(dataclasses.replace(CONFIG, shots=2), str(checkpoint.folder), tmp_path)


@pytest.fixture
def recurrent(checkpoint, tmp_path):
    """A tiny Mamba-2 with the tokenizer of the Llama, as a folder."""
    folder = shutil.copytree(checkpoint.folder, tmp_path / "mamba2")
    sizes = {"width": 16, "layers": 2, "heads": 4, "head_dim": 8, "state": 8, "groups": 2, "chunk": 8, "context": 256}
    model = mamba2.Mamba2Config(
        vocab_size=checkpoint.model.vocab_size, stop_tokens=checkpoint.model.stop_tokens, **sizes
    )
    params = jax.tree.map(lambda a: a + 0.3 * drawn(*a.shape), model.init(jax.random.key(0)))
    pretrained.save_pretrained(model, params, folder)
    return folder


def test_a_model_without_heads_is_changed_in_its_stream(recurrent, asked, checkpoint, half_known, tmp_path):
    model, params = pretrained.load_pretrained(recurrent)
    session = causal_pass.Session(CONFIG, model, params, checkpoint.tokenizer)
    change = causal_pass.replaced(model, 1, 3 * drawn(16))
    found = causal_pass.ask_each(session, asked, [None, change])
    stops = causal_pass.answers.stop_tokens(session.tokenizer, model, "\n")
    budget = asked.continuations.shape[2] + causal_pass.answers.SPARE
    for row, ids in enumerate(asked.ids):
        edits = causal_pass.edits_of(change, model, np.array([len(ids)]), len(ids))
        answer = causal_pass.language.generate(model, params, np.array([ids]), None, budget, edits, stops)
        assert found[1].texts[row] == causal_pass.answers.read(session.tokenizer, answer[0], stops)
    assert found[0].texts != found[1].texts
    with pytest.raises(
        ValueError, match="a mamba2 model has no attention heads, which the experiment function_vectors"
    ):
        causal.run(CONFIG, str(recurrent), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    of_stream = ("patching", "task_vectors", "steering", "interchange")
    causal.run(dataclasses.replace(CONFIG, experiments=of_stream), str(recurrent), tmp_path / "run")
    for name in of_stream:
        assert store.results(tmp_path / "run", "causal", name).height


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shots": 0}, "shots must be an integer from 1 to 10000, got 0"),
        ({"experiments": ("prayer",)}, "experiments must be a tuple, each element one of .*, got 'prayer'"),
        ({"steered": 101}, r"steered must be at most per_replicate \* replicates = 100, got 101"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16, got 'float16'"),
        ({"bitwise": {"digits": 2}}, r"unknown config field bitwise\.digits; did you mean bitwise\.bits"),
        ({"layers": 2}, "unknown config field layers; there are families, "),
        ({"tuning": TUNING | {"rounds": 2}}, r"unknown config field tuning\.rounds"),
        ({"tuning": TUNING | {"measure": {"shots": (1,)}}}, r"unknown config field tuning\.measure\.shots"),
        ({"tuning": TUNING | {"merged": ("last-1",)}}, r"tuning\.merged must name arms \(all\), got 'last-1'"),
        ({"tuning": TUNING | {"tune": {"steps": 0}}}, r"tuning\.tune\.steps must be a positive integer, got 0"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        from_fields(default_fields() | fields)


def test_a_layer_that_does_not_exist_is_named(session):
    with pytest.raises(ValueError, match=r"layer must be from 0 \(the embeddings\) to 2 \(the last block\), got 3"):
        causal_pass.replaced(session.model, 3, drawn(16))


def test_the_tuning_takes_tasks_and_shots_over_from_the_experiments():
    own = {"families": ("bitwise",), "shots": 2, "bos": False, "seed": 3, "bitwise": {"bits": 3}}
    config, tuned = from_fields(default_fields() | own | {"tuning": TUNING})
    measure = tuned.measure
    assert tuned.arms == ("all",) and (tuned.shots, measure.shots) == (2, (2,))
    assert (measure.families, measure.bos, measure.seed) == (("bitwise",), False, 3)
    assert measure.bitwise == config.bitwise == BitwiseConfig(bits=3)
    assert from_fields({"shots": 2}) == (CausalConfig(shots=2), None) == from_fields(default_fields() | {"shots": 2})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_one_command_runs_the_experiments_and_the_tuning_and_draws_both(
    checkpoint, half_known, tmp_path, capsys, monkeypatch
):
    small = {
        "families": "bitwise", "experiments": "patching", "shots": 1, "per_replicate": 2, "for_means": 3, "develop": 2,
        "steered": 2, "ablated": 2, "bitwise.bits": 3, "bitwise.train": 60, "bitwise.test": 40, "tuning.arms": "last-1",
        "tuning.samples": 60, "tuning.tune.steps": 4, "tuning.tune.batch_size": 6, "tuning.measure.prompts": 24,
        "tuning.measure.per_draw": 12, "tuning.measure.draws": 2, "tuning.measure.k": 3,
    }  # fmt: skip
    given = [f"--config.{name}={value}" for name, value in small.items()]
    file = Path(__file__).parents[2] / "configs" / "causal.py"
    command = ["jaxconcepts", "causal", f"--config={file}", f"--model={checkpoint.folder}"]

    def run(workdir, *more):
        argv = [*command, f"--workdir={workdir}", *given, *more]
        monkeypatch.setattr(sys, "argv", argv)  # Where ml_collections looks for changes to a config.
        return main(argv)

    assert run(tmp_path / "wrong", "--config.tuning.arms=first-3") == 2
    assert "the model has 2 blocks" in capsys.readouterr().err and not (tmp_path / "wrong").exists()
    assert run(tmp_path) == 0
    output = capsys.readouterr().out
    assert output.index("bitwise: patching (1 of 1)") < output.index("bitwise: tuning bitwise-last-1-seed0")
    assert output.count(f"report: {tmp_path / 'report.html'}") == 1
    names = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {"causal_patching_bitwise", "finetuning_cd_bitwise_1_plain", "finetuning_gain_bitwise_1_plain"} <= names


def test_a_run_of_changes_is_read_while_the_next_is_computed(session, asked, monkeypatch):
    """One behind, so that progress is said as it is made, and no results pile up."""
    order = []
    honest = causal_pass._started

    def started(*given):
        for found in honest(*given):
            order.append(("started", found[0]))
            yield found

    monkeypatch.setattr(causal_pass, "_started", started)
    wanted = causal_pass.scoring.Wanted(False, 0, ())
    for number, _, _ in causal_pass._runs(session, asked, [None] * 3, wanted, ""):
        order.append(("read", number))
    read = [("read", number) for number in range(3)]
    assert order == [("started", 0), ("started", 1), read[0], ("started", 2), *read[1:]]
