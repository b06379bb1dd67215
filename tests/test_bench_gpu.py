"""launch/bench_gpu.sh: every part with small shapes on the CPU, and what becomes of measurements that fail."""

import importlib
import json
import math
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts import __main__
from tests.documented import ROOT

sys.path.append(str(ROOT / "tests" / "benchmarks"))
gpu, gpu_cd, gpu_models, gpu_rates, gpu_smoke, gpu_training = (
    importlib.import_module(name) for name in ("gpu", "gpu_cd", "gpu_models", "gpu_rates", "gpu_smoke", "gpu_training")
)

ABOUT = {"device": "Some GPU (80 GB)", "platform": "cpu", "jax": jax.__version__}
SHARED = {"part", "benchmark", "shape", "ours_s", "device", "jax", "command"}
# By part: the columns that some row has beside, and the peers.
PARTS = {
    "cd": ({"decided_again", "score", "flops_per_s"}, {"full Gram product", "the same inside jit"}),
    "training": ({"steps_per_s", "hours", "flops", "compile_s"}, {"the steps"}),
    "packs": ({"runs", "microseconds", "compile_s"}, {"JAX, one run after another"}),
    "models": ({"tokens_per_s", "new_tokens", "cells_per_s", "attention"}, set()),
}


def table(folder, part):
    return gpu.Table(folder, part, ABOUT, quick=True)


def written(folder, part):
    return json.loads((folder / f"{part}-some-gpu-80-gb-quick.json").read_text())


def check_rows(rows, part):
    for row in rows:
        assert set(row) >= SHARED and "error" not in row, row
        assert (row["part"], row["device"], row["jax"]) == (part, ABOUT["device"], jax.__version__)
        assert row["command"] == f"bash launch/bench_gpu.sh {part} --quick"
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float)) and row["ours_s"] > 0
        if "peer" in row:
            assert row["ratio"] == row["peer_s"] / row["ours_s"]


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.usefixtures("compiles_fast")
def test_a_part_runs(part, tmp_path):
    assert gpu.run_part(table(tmp_path, part), part, quick=True) == 0
    made = written(tmp_path, part)
    check_rows(made["rows"], part)
    columns, peers = PARTS[part]
    assert columns <= {name for row in made["rows"] for name in row}
    assert peers <= {row.get("peer") for row in made["rows"]}
    names = importlib.import_module(f"gpu_{part}").measurements(True)
    assert len(made["rows"]) >= len(names) and made["versions"]["jax"] == jax.__version__


# The others take longest, and test_documented_commands.py runs the same small forms of them.
RUN = ("plan", "train", "report", "patch", "sweep", "status")


@pytest.mark.slow
def test_commands_run(server, tmp_path, monkeypatch):
    def run(words):
        return server(*words)[:2] if words[0] in RUN else (0, "")

    monkeypatch.setattr(gpu_smoke, "process", run)
    code = gpu.run_part(table(tmp_path, "smoke"), "smoke", quick=True)
    rows = written(tmp_path, "smoke")["rows"]
    assert code == 0, [row.get("error") for row in rows]
    check_rows(rows, "smoke")
    assert {row["exit_code"] for row in rows} == {0} and len(rows) == len(__main__.COMMANDS)


def test_every_command_is_there_and_has_flags_that_it_takes(tmp_path, parses):
    made = gpu_smoke.commands(tmp_path)
    assert {words[0] for words in made} == set(__main__.COMMANDS)
    for words in made:
        assert parses(words)
    assert not parses([*made[-1], "--config.train.stepz=2"])


def test_a_command_that_fails_says_why():
    (row,) = gpu_smoke.measure(["trian"])
    assert row["exit_code"] == 2 and row["error"] == "error: unknown command 'trian'; did you mean train?"
    assert gpu_smoke.error_line("Traceback (most recent call last):\n  ...\nKeyError: 'x'\n\n") == "KeyError: 'x'"


def test_a_measurement_that_fails_leaves_the_others(tmp_path, monkeypatch):
    seen = []

    def fails():
        yield {"shape": "1", "ours_s": 1.0}
        # What is measured is on disk before anything else is tried.
        seen.extend(written(tmp_path, "fake")["rows"])
        raise RuntimeError("no kernel\nfor this device")

    measurements = {"first": fails, "second": lambda: [{"shape": "2", "ours_s": 2.0}]}
    monkeypatch.setitem(sys.modules, "gpu_fake", SimpleNamespace(measurements=lambda quick: measurements))
    assert gpu.run_part(table(tmp_path, "fake"), "fake", quick=True) == 1
    rows = written(tmp_path, "fake")["rows"]
    assert [row["benchmark"] for row in rows] == ["first", "first", "second"] and seen == rows[:1]
    assert rows[1]["error"] == "RuntimeError: no kernel" and "ours_s" not in rows[1]


ROW = "yield {'shape': '', 'ours_s': 1.0}"


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [
        (f"{ROW}", 0, None),
        (f"{ROW}; import os; os._exit(9)", 1, "the process ended with exit code 9"),
        (f"{ROW}; import time; time.sleep(60)", 1, "not done after 5 s"),
    ],
)
def test_a_part_is_a_process(tmp_path, monkeypatch, capsys, body, code, error):
    text = f"def one():\n    {body}\n\n\ndef measurements(quick):\n    return {{'one': one}}\n"
    (tmp_path / "gpu_fake.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu.start_part("fake", tmp_path, ABOUT, True, seconds=5) == code
    rows = written(tmp_path, "fake")["rows"]
    assert [row.get("error") for row in rows] == [None, error][: len(rows)] and len(rows) == 1 + code
    assert str(tmp_path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cd", "cds"], "PART must be one of smoke, cd, training, packs, models, got 'cds'"),
        (["cd"], "the device is a CPU, on which these shapes take hours; --quick runs small ones"),
    ],
)
def test_bad_input_is_named_before_anything_runs(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(gpu, "ABOUT", f"print({json.dumps(json.dumps(ABOUT))})")
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    output = capsys.readouterr()
    assert ended.value.code == 2 and message in output.err and not output.out


def test_all_parts_go_on_after_one_that_failed(monkeypatch):
    started = []
    monkeypatch.setattr(gpu, "ABOUT", f"print({json.dumps(json.dumps(ABOUT))})")
    monkeypatch.setattr(gpu, "start_part", lambda part, *_: started.append(part) or int(part == "cd"))
    monkeypatch.setattr(gpu.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--quick"])
    assert gpu.main() == 1 and started == list(gpu.PARTS)


def test_a_shape_that_does_not_fit_is_halved_once():
    def measure(most, size):
        if size > most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return [{"size": size}]

    assert gpu_rates.at_size(lambda size: measure(64, size), 64) == [{"size": 64}]
    (row,) = gpu_rates.at_size(lambda size: measure(40, size), 64)
    assert row == {"size": 32, "note": "out of memory at 64, so at 32"}
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        gpu_rates.at_size(lambda size: measure(20, size), 64)

    def broken(size):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        gpu_rates.at_size(broken, 64)


def test_shares_are_of_the_documented_peak(monkeypatch):
    device = SimpleNamespace(device_kind="NVIDIA H200", platform="gpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "devices", lambda: [device])
    made = gpu_rates.rate(989e12, 4.0, "bfloat16", aim=0.5)
    # At the peak it takes one second, at the aim two, and it took four.
    assert (made["share"], made["peer_s"], made["ratio"], made["aim"]) == (0.25, 2.0, 0.5, 1)
    assert gpu_rates.rate(67e12, 2.0, "float32")["share"] == 0.5
    device.device_kind = "NVIDIA GeForce"
    made = gpu_rates.rate(989e12, 4.0, "bfloat16", aim=0.5)
    assert made == {"flops": 989e12, "flops_per_s": 989e12 / 4, "peak_of": "bfloat16"}


def test_the_share_decided_again():
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(5.0)] * 3), -1).reshape(1, -1, 3)
    spread = jax.random.normal(jax.random.key(0), grid.shape)
    assert gpu_cd.decided_again(grid) > 0.9 and gpu_cd.decided_again(spread) < 0.05


def test_flops_of_a_step_are_those_of_the_closed_form(monkeypatch):
    monkeypatch.setitem(gpu_training.QUICK, "model", {"layers": 2, "heads": 2, "width": 64, "dtype": "float32"})
    point = gpu_training.paper("float32", quick=True, batch=4)
    # A token and block: 12 d^2 weights and attention to all T tokens, twice; backward twice that again.
    width, tokens = 64, 8
    forward = 2 * (2 * 12 * width**2 + 4 * tokens * width)
    assert gpu_training.step_flops(point, 5) == pytest.approx(5 * 4 * tokens * 3 * forward, rel=0.05)


@pytest.mark.parametrize("name", gpu_models.MODELS)
@pytest.mark.usefixtures("compiles_fast")
def test_random_weights_are_like_those_of_init(name):
    model, made = gpu_models.loaded({}, name, quick=True)
    drawn = jax.jit(model.init)(jax.random.key(0))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), made) == jax.tree.map(lambda a: (a.shape, a.dtype), drawn)
    for path, leaf in jax.tree.leaves_with_path(made):
        values = np.asarray(leaf, np.float32)
        if path[-1].key == "scale":
            like = drawn["final_norm"]["scale"]
            assert (values == np.asarray(like, np.float32)[0]).all()
        else:
            assert values.std() == pytest.approx(0.02, rel=0.1)
