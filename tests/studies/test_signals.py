"""SIGTERM and Ctrl-C, wherever they meet a command: exit code 75, one line, and the same command goes on."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pulses import without_pulses

from jaxconcepts import __main__, store
from jaxconcepts.studies.extraction import study as extraction

ROOT = Path(__file__).parents[2]
TOKENIZERS = ("transformers.models.auto.tokenization_auto",)
STOPPED = {int(signal.SIGTERM): "stopped by SIGTERM", int(signal.SIGINT): "stopped by SIGINT"}


@pytest.mark.parametrize("command", ["extract", "patch", "report", "sweep"])
def test_a_signal_while_a_command_is_imported(server, command, tmp_path):
    number = list(STOPPED)[len(command) % 2]
    code, output, seen = server(
        command, f"--workdir={tmp_path}/run", signal=number, match=rf"commands/(__pycache__/)?{command}\."
    )
    assert (code, output) == (75, f"{STOPPED[number]}; start again to continue\n") and seen == 1
    assert not (tmp_path / "run").exists()


def test_ctrl_c_as_the_process_starts_and_imports_jax(environment, tmp_path):
    """As a process of its own, at moments from its first instructions on."""
    number = int(signal.SIGINT)
    command = [sys.executable, "-X", "importtime", "-m", "jaxconcepts", "train", "--config=quickstart"]
    with subprocess.Popen(
        [*command, f"--workdir={tmp_path}/run"], env=environment, stderr=-1, stdout=-1, text=True, cwd=ROOT
    ) as process:
        for line in process.stderr:
            if line.endswith("jax._src.config\n"):
                process.send_signal(number)
                break
        rest = [line for line in process.stderr if not line.startswith("import time:")]
    assert process.returncode == 75 and without_pulses("".join(rest)) == f"{STOPPED[number]}; start again to continue\n"
    assert not (tmp_path / "run").exists()


def test_a_signal_is_told_of_once_by_the_two_threads_that_hear_of_it(environment):
    """Writing lets the other thread run: here for long enough that it always does."""
    script = "import os, time; from jaxconcepts.runs import preemption; write = os.write\n"
    script += "os.write = lambda file, line: (write(file, line), time.sleep(0.3))\n"
    script += "preemption.end_on_signals(); print('on', flush=True)\nwhile True: time.sleep(0.01)"
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=-1, stderr=-1, cwd=ROOT) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"stopped by SIGINT; start again to continue\n"
        assert process.wait() == 75


def test_a_signal_during_one_long_instruction_is_not_waited_with(environment):
    """As a compilation is one: the interpreter runs no handler before it ends."""
    script = "import hashlib; from jaxconcepts.runs import preemption; preemption.end_on_signals()\n"
    script += "print('on', flush=True); hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)"
    with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=-1, stderr=-1, cwd=ROOT) as process:
        process.stdout.readline()
        time.sleep(0.3)
        start = time.monotonic()
        process.terminate()
        assert process.wait() == 75 and time.monotonic() - start < 5
        assert process.stderr.read() == b"stopped by SIGTERM; start again to continue\n"


COLLECTED = """
import os, signal
from jaxconcepts.runs import preemption

before = signal.getsignal(signal.SIGTERM)
try:
    with preemption.stop_requested() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    raise AssertionError("no PreemptedError")
except preemption.PreemptedError as error:
    assert "start again" in str(error)
assert signal.getsignal(signal.SIGTERM) is before
with preemption.stop_requested() as received:
    pass
try:
    with preemption.stop_requested():
        os.kill(os.getpid(), signal.SIGINT)
        raise KeyError  # The body's own error is the one that is told.
except KeyError:
    print("collected")
"""


def test_signals_are_collected_where_work_is_unsaved_and_told_at_the_end(environment):
    """In a process of its own, which a signal that is not collected would end."""
    done = subprocess.run(
        [sys.executable, "-c", COLLECTED], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "collected\n"), done.stderr


@pytest.fixture(scope="module")
def trained(server, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained") / "run"
    code, output, _ = server("train", f"--config={ROOT}/tests/small_train.py", f"--workdir={workdir}")
    assert code == 0, output
    return workdir


def test_a_signal_in_patch(trained, server):
    order = ("patch", f"--workdir={trained}", "--per_concept=4", "--mean_per_concept=4", "--step=24")
    at = {"signal": int(signal.SIGTERM), "match": r"patching/summary/.*parquet\.tmp"}
    code, output, _ = server(*order, **at)
    assert code == 75 and output.endswith("stopped by SIGTERM; start again to continue\n") and "Traceback" not in output
    code, output, _ = server(*order)
    assert code == 0, output
    assert store.results(trained, "patching", "summary")["run"].n_unique() == 2


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts with a space.jsonl"
    rows = [{"prompt": f"{i % 2}{i % 4 // 2} 01", "c": "ab"[i % 2]} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("match", [r"prompts/\d+\.parquet", r"done\.json"])
def test_a_signal_in_extract(server, checkpoint, prompts, tmp_path, match):
    order = ("extract", f"--model={checkpoint.folder}", f"--prompts={prompts}", "--nobos", "--batch_size=4")
    order += (f"--workdir={tmp_path}/a[b]/run",)
    at = {"imports": TOKENIZERS, "signal": int(signal.SIGTERM), "match": match, "nth": 2 if "json" in match else 1}
    code, output, _ = server(*order, **at)
    assert code == 75 and output.endswith("stopped by SIGTERM; start again to continue\n") and "Traceback" not in output
    code, output, _ = server(*order, imports=TOKENIZERS)
    assert code == 0, output
    extraction.verify(tmp_path / "a[b]" / "run")
    states = extraction.hidden_states(tmp_path / "a[b]" / "run").read().result()
    assert states.shape[0] == 12 and np.isfinite(states).all()


def test_a_signal_in_icl(server, checkpoint, tmp_path):
    order = ("icl", f"--model={checkpoint.folder}", f"--config={ROOT}/tests/small_icl.py", f"--workdir={tmp_path}/run")
    at = {"imports": TOKENIZERS, "signal": int(signal.SIGINT), "match": r"icl/models/.*parquet"}
    code, output, _ = server(*order, **at)
    assert code == 75 and output.endswith("stopped by SIGINT; start again to continue\n") and "Traceback" not in output


TASKS = {"families": "bitwise", "bitwise.bits": 2, "bitwise.train": 60, "bitwise.test": 40, "shots": 1}
MEASURED = {"prompts": 14, "per_draw": 6, "draws": 2, "k": 2, "permutations": 2, "variants": "plain"}
STUDIES = {
    "causal": TASKS | {
        "per_replicate": 2, "replicates": 2, "for_means": 3, "develop": 2, "effects": 2, "steered": 2, "ablated": 2,
        "pairs": 2, "batch_size": 8, "scales": 2.0, "tuning.arms": "",
        "experiments": "interchange",
    },
    "finetune": {f"measure.{name}": value for name, value in (TASKS | MEASURED).items()} | {
        "shots": 1, "arms": "none,first-1", "samples": 12, "tune.steps": 2, "tune.batch_size": 6, "lora.rank": 2,
        "measure.dtype": "float32",
    },
}  # fmt: skip
"""The two studies of a language model in their smallest form."""


def study_of(command, model, workdir):
    fields = [f"--config.{name}={value}" for name, value in STUDIES[command].items()]
    return [command, f"--config={command}", f"--model={model}", f"--workdir={workdir}", *fields]


@pytest.mark.parametrize(
    ("command", "number", "match"),
    [
        ("causal", signal.SIGINT, r"causal/concepts/.*parquet\.tmp"),
        *(
            pytest.param("finetune", number, match, marks=pytest.mark.slow)
            for number, match in (
                (signal.SIGTERM, r"finetuning/metrics/bitwise-before.*parquet\.tmp"),
                (signal.SIGINT, r"checkpoints/bitwise/.*"),
            )
        ),
    ],
)
def test_a_signal_in_a_study_of_a_language_model(server, checkpoint, tmp_path, command, number, match):
    """While it computes, measures or tunes; what was done is kept."""
    order = study_of(command, checkpoint.folder, tmp_path / "run")
    code, output, seen = server(*order, imports=TOKENIZERS, signal=int(number), match=match)
    assert code == 75 and seen and "stopped by " in output.splitlines()[-1], output
    assert "start again to continue" in output.splitlines()[-1] and "Traceback" not in output
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    code, output, _ = server(*order, imports=TOKENIZERS)
    assert code == 0, output
    results = {path: path.stat().st_mtime_ns for path in kept if path.parts[-3] == "finetuning"}
    assert results.items() <= kept.items()


@pytest.mark.slow
def test_a_signal_while_a_report_is_drawn(trained, server):
    at = {"signal": int(signal.SIGTERM), "match": r"run/figures/\w+\.svg", "draw": True}
    code, output, _ = server("report", f"--workdir={trained}", **at)
    assert code == 75 and output.endswith("stopped by SIGTERM; start again to continue\n") and "Traceback" not in output
    assert not (trained / "report.html").exists()
    code, output, _ = server("report", f"--workdir={trained}", draw=True)
    assert code == 0 and f"report: {trained}/report.html" in output


def test_a_signal_in_a_sweep_that_is_about_to_compile_ends_it_at_once(server, tmp_path):
    """Nothing is unsaved before the first chunk of a pack, so no compilation is waited for."""
    order = ("sweep", f"--config={ROOT}/tests/sweeps/small_sweep.py", f"--workdir={tmp_path}/run")
    code, output, _ = server(*order, signal=int(signal.SIGTERM), match=r"run/packs/.*json")
    assert code == 75 and output.endswith("stopped by SIGTERM; start again to continue\n") and "at step" not in output
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


DISKS = [
    ("extract", ("--model={model}", "--prompts={prompts}", "--nobos")),
    ("icl", ("--model={model}", "--config={root}/tests/small_icl.py")),
    ("causal", ()),
    ("finetune", ()),
    ("report", ()),
    ("train", ("--config={root}/tests/small_train.py",)),
    ("patch", ()),
    ("decodability", ("--label=c",)),
    ("status", ()),
]


@pytest.mark.parametrize(("command", "flags"), DISKS, ids=[command for command, _ in DISKS])
def test_a_workdir_that_cannot_be_written_to_ends_in_one_line(server, checkpoint, prompts, tmp_path, command, flags):
    under = ("a file", "in a file", "read-only")[len(command) % 3]
    (tmp_path / "file").touch()
    workdir = {"a file": tmp_path / "file", "in a file": tmp_path / "file" / "run", "read-only": Path("/proc/run")}
    names = {"model": checkpoint.folder, "prompts": prompts, "root": ROOT}
    order = [command, *(flag.format(**names) for flag in flags), f"--workdir={workdir[under]}"]
    order = study_of(command, checkpoint.folder, workdir[under]) if command in STUDIES else order
    code, output, _ = server(*order, imports=TOKENIZERS, draw=command == "report")
    last = output.splitlines()[-1]
    assert code == 2 and last.startswith("error: ") and "Traceback" not in output, output
    assert str(workdir[under]) in last


@pytest.fixture
def full_disk(trained, small_disk):
    """A small disk with a run on it, and nothing left."""
    shutil.copytree(trained, small_disk / "run", ignore=shutil.ignore_patterns("figures", "report.html"))
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    return small_disk


def test_a_report_and_a_tuning_on_a_full_disk_or_a_read_only_one(server, checkpoint, full_disk):
    orders = {"run": ["report", f"--workdir={full_disk}/run"]}
    orders["tuned"] = study_of("finetune", checkpoint.folder, full_disk / "tuned")
    for name, order in orders.items():
        code, output, _ = server(*order, imports=TOKENIZERS, draw=True)
        last = output.splitlines()[-1]
        assert code == 1 and last.startswith(f"error: the disk is full, while writing {full_disk}/{name}/"), output
        assert "Traceback" not in output
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    for name, order in orders.items():
        code, output, _ = server(*order, imports=TOKENIZERS, draw=True)
        last = output.splitlines()[-1]
        assert code == 2 and last.startswith("error: ") and f"{full_disk}/{name}" in last, output
        assert "Read-only file system" in last and "Traceback" not in output


@pytest.mark.parametrize("free", [0, 8_000, 30_000])
def test_an_extraction_on_a_full_disk_goes_on_once_there_is_space(server, checkpoint, prompts, small_disk, free):
    (small_disk / "ballast").write_bytes(bytes(shutil.disk_usage(small_disk).free - free))
    order = ("extract", f"--model={checkpoint.folder}", f"--prompts={prompts}", "--nobos", "--batch_size=2")
    order += (f"--workdir={small_disk}/run",)
    code, output, _ = server(*order, imports=TOKENIZERS)
    last = output.splitlines()[-1]
    assert code == 1 and last.startswith("error: the disk is full, while writing ") and str(small_disk) in last, output
    assert "Traceback" not in output
    (small_disk / "ballast").unlink()
    code, output, _ = server(*order, imports=TOKENIZERS)
    assert code == 0, output
    extraction.verify(small_disk / "run")


BAD_INPUT = [
    ("extract", ("--model=/nowhere", "--prompts={prompts}", "--nobos")),
    ("extract", ("--model={model}", "--prompts=/nowhere.jsonl", "--nobos")),
]


@pytest.mark.parametrize(("command", "flags"), BAD_INPUT, ids=[f"{c} {f[0][:20]}" for c, f in BAD_INPUT])
def test_nothing_is_written_before_the_inputs_are_checked(server, checkpoint, prompts, tmp_path, command, flags):
    names = {"model": checkpoint.folder, "prompts": prompts, "root": ROOT}
    given = [flag.format(**names) for flag in flags]
    code, output, _ = server(command, *given, f"--workdir={tmp_path}/run", imports=TOKENIZERS)
    assert code == 2 and "/nowhere" in output and len(output.splitlines()) == 1, output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["extract", "icl", "causal", "finetune"])
@pytest.mark.parametrize("damage", ["cut short", "another width", "missing"])
def test_weights_that_do_not_fit_are_told_before_anything_is_written(
    server, checkpoint, prompts, tmp_path, command, damage
):
    folder = shutil.copytree(checkpoint.folder, tmp_path / "model")
    weights = folder / "model.safetensors"
    if damage == "another width":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    elif damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-4])
    workdir = tmp_path / "run"
    orders = {name: study_of(name, folder, workdir) for name in STUDIES}
    orders["extract"] = ["extract", f"--model={folder}", f"--prompts={prompts}", "--nobos", f"--workdir={workdir}"]
    orders["icl"] = ["icl", f"--model={folder}", f"--config={ROOT}/tests/small_icl.py", f"--workdir={workdir}"]
    code, output, _ = server(*orders[command], imports=TOKENIZERS)
    assert code == 2 and output.startswith("error: ") and output.count("\n") == 1 and str(folder) in output, output
    assert not workdir.exists()


@pytest.mark.parametrize("command", ["extract", "patch", "report", "sweep"])
def test_an_empty_workdir_is_refused(command, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        flags = [f"--workdir={empty}", "--model=x", "--prompts=x", "--bos", "--label=x", "--config=quickstart"]
        known = {"extract": flags[:4], "decodability": [flags[0], flags[4]], "patch": flags[:1], "report": flags[:1]}
        known |= {"status": flags[:1], "icl": [flags[0], flags[1], "--config=icl"]}
        known |= {name: [flags[0], flags[1], f"--config={name}"] for name in ("causal", "finetune")}
        known |= {"icl_from_scratch": [flags[0], "--config=icl_from_scratch"]}
        assert __main__.main(["jaxconcepts", command, *known.get(command, [flags[0], flags[5]])]) == 2
        assert "workdir" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
