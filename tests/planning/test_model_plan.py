"""Plans for extraction: the memory of a compiled program, operations by hand, and what does not divide."""

import dataclasses
import importlib.util
import json

import jax
import pytest

from jaxconcepts.__main__ import main
from jaxconcepts.models import llama, presets, pretrained
from jaxconcepts.planning import chips, model_plan
from tests.models import test_gguf

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="compiling for a TPU needs libtpu: pip install '.[plan]'"
)

MODEL = llama.LlamaConfig(
    vocab_size=30, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=24, context=64, tied=True
)  # fmt: skip


def test_a_plan_holds_the_parameters_and_counts_the_operations():
    plan = model_plan.plan(MODEL, jax.devices()[:1], batch=4, length=32, model_axis=1)
    assert plan.parameters == 4 * MODEL.num_params()
    # Parameters in, [layers + 1, batch, width] out, and what is between.
    assert plan.memory > plan.parameters + 4 * 3 * 4 * 16
    assert plan.limit > plan.memory and plan.fits
    weights = 2 * (16 * 32 + 2 * 16 * 16 + 32 * 16 + 3 * 16 * 24)
    assert plan.flops == 4 * 32 * (2 * weights + 2 * 4 * 32 * 32)
    assert plan.tokens_per_second is None


def made(memory, limit=10, **other):
    sizes = {"batch": 8, "length": 32, "data": 1, "model": 4, "parameters": 4, "flops": 1e9, "seconds": 0.5}
    return model_plan.ModelPlan(**(sizes | {"memory": memory, "limit": limit, "collectives": {}} | other))


def test_it_does_not_fit_beyond_the_limit():
    assert made(10).fits and made(11).fits is False and made(None).fits is False
    assert made(11, limit=None).fits is None
    assert made(10).tokens_per_second == 8 * 32 / 0.5


@pytest.mark.parametrize(
    ("batch", "model_axis", "message"),
    [(4, 3, "model_axis must divide the 2 devices, got 3"), (3, 1, "multiple of the data axis of 2, got 3")],
)
def test_what_does_not_divide_is_refused(batch, model_axis, message):
    with pytest.raises(ValueError, match=message):
        model_plan.plan(MODEL, [jax.devices()[0]] * 2, batch, 32, model_axis)


class Compiler:
    """Stands for `plan` on four chips of `limit` bytes: the batch's rows take 100 bytes each, wherever they are."""

    def __init__(self, monkeypatch, limit):
        self.tried = []
        chip = chips.Chip("small chip", limit, 1e9, 1e9)
        monkeypatch.setattr(chips, "describe", lambda device: chip)
        monkeypatch.setattr(model_plan, "plan", self.plan)
        self.limit, self.lines = limit, []

    def plan(self, model, devices, batch, length, model_axis):
        self.tried.append((batch, model_axis))
        memory = HELD[model_axis] + 100 * batch
        return made(memory, self.limit, batch=batch, data=4 // model_axis, model=model_axis)

    def fits(self):
        return model_plan.plan_and_show(MODEL, jax.devices()[:4], 8, 32, self.lines.append)


# Bytes of the parameters on a chip, shared by so many; the norms' are on each.
HELD = {axis: model_plan._held(MODEL, jax.devices()[:4], axis) for axis in (1, 2, 4)}


@pytest.mark.parametrize(
    ("limit", "fits", "tried", "said"),
    [
        (HELD[1] + 800, True, [(8, 1)], "mesh             4 x 1"),
        # The parameters alone are too much for one chip, and half of them with the batch for two: not compiled, tried.
        (HELD[2] + 700, True, [(8, 2), (8, 4)], "mesh             1 x 4"),
        (HELD[4] + 450, False, [(8, 4), (4, 4)], "does not fit; --batch_size=4 would"),
        (HELD[4] + 80, False, [(8, 4), (4, 4), (2, 4), (1, 4)], "not even one prompt of 32 tokens does"),
        (HELD[4] - 1000, False, [], "it takes 8 chips at least"),
    ],
)
def test_as_few_chips_share_the_parameters_as_will_do(monkeypatch, limit, fits, tried, said):
    compiler = Compiler(monkeypatch, limit)
    assert compiler.fits() is fits
    assert compiler.tried == tried
    assert said in "\n".join(compiler.lines) and "plan, not a measurement" in compiler.lines[0]


def test_presets_are_what_their_names_say():
    assert presets.preset("Llama-3.1-70B", "bfloat16").num_params() == 70_553_706_496
    assert presets.preset("llama-3.2-1b").num_params() == 1_235_814_400
    assert presets.preset("llama-3.2-3b").num_params() == 3_212_749_824
    with pytest.raises(
        ValueError, match="model must be a checkpoint folder, a GGUF file or one of llama-3-8b, .*got 'llama-9'"
    ):
        presets.preset("llama-9")


def command(*arguments):
    return main(["jaxconcepts", "plan", *arguments])


def test_the_command_plans_a_checkpoint_folder(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | MODEL.to_hf()))
    arguments = [f"--model={tmp_path}", "--local", "--batch_size=8", "--length=32"]
    assert command(*arguments) == 0
    out = capsys.readouterr().out
    assert "Llama, 2 layers x 16 wide" in out and "in bfloat16" in out and "8 prompts of 32 tokens" in out


def test_the_command_plans_a_gguf_file_and_a_packaged_model(tmp_path, capsys, monkeypatch):
    pytest.importorskip("gguf")
    path = test_gguf.write(tmp_path / "model.gguf")
    monkeypatch.setattr(pretrained, "_packaged", lambda name: path if name == "smollm2-135m" else pytest.fail(name))
    for model in (path, "smollm2-135m"):
        assert command(f"--model={model}", "--local", "--batch_size=4", "--length=16", "--dtype=float32") == 0
        assert "Llama, 2 layers x 64 wide" in capsys.readouterr().out


def test_help_lists_the_flags_of_models_and_of_sweeps(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    out = capsys.readouterr().out
    assert "--model" in out and "a GGUF file" in out and "--each_group" in out and "--config" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=llama-9", "--local"], "model must be a checkpoint folder, a GGUF file or one of"),
        (["--model=gemma-2-27b"], "plan needs one of --topology=NAME"),
        (["--model=gemma-2-27b", "--local", "--length=9000"], "at most the model's context of 8192, got 9000"),
        (["--model=gemma-2-27b", "--local", "--batch_size=0"], "batch_size"),
    ],
)
def test_bad_commands_are_refused(capsys, arguments, message):
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err


@needs_libtpu
def test_the_command_exits_with_1_where_a_model_cannot_fit(capsys):
    assert command("--model=llama-3.1-70b", "--topology=v5e:2x2") == 1
    assert "the parameters alone take 32.9 GiB" in (out := capsys.readouterr().out) and "it takes 16 chips" in out


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
def test_a_plan_for_tpus(topology):
    devices = chips.of_topology(topology)
    plan = model_plan.plan(dataclasses.replace(MODEL, dtype="bfloat16"), devices, 8, 32, model_axis=2)
    assert plan.fits and (plan.data, plan.model) == (2, 2) and "all-reduce" in plan.collectives
    # Slower by far than the peak, as so small a model is, and below a millisecond.
    assert plan.flops / 4 / chips.describe(devices[0]).peak < plan.seconds < 1e-3
    assert plan.parameters < 2 * MODEL.num_params()


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-3.1-70b", "gemma-2-27b"])
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x4"])
def test_large_models_fit_small_slices(name, topology):
    lines = []
    devices = chips.of_topology(topology)
    assert model_plan.plan_and_show(presets.preset(name, "bfloat16"), devices, 16, 512, lines.append), lines
    assert "tokens per second" in lines[-1]
    # Llama-70B takes several chips in either, which communicate in ways that the time leaves out.
    assert ("without the all-reduces" in lines[-1]) == (name == "llama-3.1-70b" or topology == "v6e:2x4")
