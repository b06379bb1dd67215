"""The in-context study from the command line: from start to report, killed and started again, bad input."""

import random
import shutil
from pathlib import Path

import pytest

from jaxconcepts import store

CONFIG = Path(__file__).parents[1] / "small_icl.py"
KINDS = ("metrics", "fits", "models", "hidden")
TOKENIZERS = ("transformers.models.auto.tokenization_auto",)


@pytest.fixture(scope="module")
def icl(server, checkpoint, tmp_path_factory):
    """Runs the command on a series of two checkpoints with the same weights."""
    folder = tmp_path_factory.mktemp("series")
    for step in (10, 20):
        shutil.copytree(checkpoint.folder, folder / f"step_{step}")

    def run(workdir, *flags, series=folder, **at):
        given = (f"--checkpoints={series}", f"--config={CONFIG}", f"--workdir={workdir}")
        return server("icl", *given, *flags, imports=TOKENIZERS, **at)

    return run


@pytest.fixture(scope="module")
def finished(icl, tmp_path_factory):
    """A study that nothing interrupted, and the number of file operations in its workdir."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    code, output, operations = icl(workdir, match=str(workdir), nth=0, draw=True)
    assert code == 0, output
    return workdir, output, operations


def assert_same_tables(workdir, finished):
    for kind in KINDS:
        ours, theirs = store.results(workdir, "icl", kind), store.results(finished, "icl", kind)
        assert ours.equals(theirs), kind


@pytest.mark.slow
def test_from_start_to_report(finished):
    workdir, output, _ = finished
    assert f"report: {workdir}/report.html" in output and "checkpoint 2 of 2, step 20: step_20" in output
    assert "prompts/s" in output and "cell 2 of 2, 0 s left" in (workdir / "log.txt").read_text()
    table = store.results(workdir, "icl", "metrics")
    assert sorted(table["run"].unique()) == [
        f"{step:09d}-bitwise-{shots}-plain" for step in (10, 20) for shots in (1, 2)
    ]
    page = (workdir / "report.html").read_text()
    for name in ("icl_shots", "icl_layers", "icl_scatter", "icl_series", "icl_pairwise", "icl_hidden_0"):
        assert f'<figure id="{name}">' in page
    assert "Prompted against plain: no variant but one in the tables" in page


@pytest.mark.slow
def test_killed_between_cells_and_in_one_it_ends_with_the_same_tables(icl, finished, tmp_path):
    workdir = tmp_path / "run"
    code, output, _ = icl(workdir, match=r"metrics/000000010-bitwise-2-plain", nth=2)  # as the part gets its name
    assert code == -9, output
    assert store.results(workdir, "icl", "metrics")["run"].unique().to_list() == ["000000010-bitwise-1-plain"]
    code, output, _ = icl(workdir, match=str(workdir), nth=random.Random(0).randrange(1, finished[2]))
    assert code in (0, -9), output
    code, output, _ = icl(workdir)
    assert code == 0, output
    assert_same_tables(workdir, finished[0])


@pytest.mark.slow
def test_killed_at_many_moments_it_ends_with_the_same_tables(icl, finished, tmp_path):
    rng, hit = random.Random(1), 0
    for attempt in range(4):
        workdir = tmp_path / str(attempt)
        for _ in range(4):
            # Of a quarter of the writes, for what is left grows less with every start: four kills go through them all.
            code, output, _ = icl(workdir, match=str(workdir), nth=rng.randrange(1, finished[2] // 4))
            assert code in (0, -9), output
            hit += code == -9
        code, output, _ = icl(workdir)
        assert code == 0, output
        assert_same_tables(workdir, finished[0])
    assert hit >= 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.shot=1"], "shot"),
        (["--config.bitwise.bit=1"], "bit"),
        (["--config.k=6"], "k must be below per_draw = 6, a concept's points in a draw, got 6"),
        (["--config.variants=rhyme"], "variants must be a tuple, each element one of plain, rule, name, got 'rhyme'"),
        (["--model=x/y"], "icl needs one of --model=FOLDER|ID and --checkpoints="),
        (["--revision=main"], "--revision goes with --model"),
    ],
)
def test_bad_flags_are_named(icl, tmp_path, flags, message):
    code, output, _ = icl(tmp_path / "run", *flags)
    assert code == 2 and message in output and output.startswith("error: ") and "Traceback" not in output


def test_a_folder_without_checkpoints_is_named(icl, tmp_path):
    code, output, _ = icl(tmp_path / "run", series=tmp_path)
    assert code == 2 and f"checkpoints: {tmp_path} holds no folder named step_<number>" in output
