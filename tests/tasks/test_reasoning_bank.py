"""The bank: its arrays against the problems, its files against kills, damage and other requests."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxconcepts.tasks import reasoning_bank, reasoning_check, reasoning_labels
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate
from jaxconcepts.tasks.reasoning_graph import INDEX, PARAMETERS

ROOT = Path(__file__).parents[2]
CONFIG = ReasoningConfig(retry=0.3, retry_masked=True)
COUNT, SEED, PART = 23, 2, 4


def write(folder, config=CONFIG, **changes):
    return reasoning_bank.write(folder, config, **({"count": COUNT, "seed": SEED, "part_size": PART} | changes))


def problems(config, count=COUNT):
    return [generate(config, SEED * 2**32 + number) for number in range(count)]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    return folder, write(folder)


@pytest.mark.parametrize("form", ["compact", "english"])
@pytest.mark.parametrize("first", [False, True])
def test_tokens_are_the_problems(tmp_path, form, first):
    config = ReasoningConfig(form=form, retry=0.3, question_first=first)
    bank = write(tmp_path, config)
    tokens, vocabulary = bank.tokens(), bank.vocabulary
    assert tokens.shape == (COUNT, bank.longest) and len(bank) == COUNT
    for row, prompt, problem in zip(tokens, bank.prompts, problems(config), strict=True):
        text = reasoning_labels.decode(row, vocabulary)
        assert text.replace(" ", "") == (problem.question + problem.solution).replace(" ", "")
        assert reasoning_check.check(problem, reasoning_labels.decode(row[prompt:], vocabulary)).correct
        assert row[0] == reasoning_labels.BOS and list(row).count(reasoning_labels.EOS) == 1
    assert list(bank.group) == list(range(COUNT))
    assert list(bank.answers) == [problem.answer for problem in problems(config)]
    assert list(bank.templates) == [problem.template_hash for problem in problems(config)]
    assert list(bank.operations) == [problem.operations for problem in problems(config)]


def test_loss_falls_on_the_solution_and_not_on_names_taken_back(reference):
    _, bank = reference
    tokens, vocabulary = bank.tokens(), np.array(bank.vocabulary)
    mask, everything = bank.loss_mask(), bank.loss_mask(on="all")
    masked = 0
    for row in range(len(bank)):
        words = vocabulary[tokens[row]]
        length, prompt = list(words).index("<eos>") + 1, bank.prompts[row]
        # In the compact form a name that is taken back is the word before BACK.
        back = np.roll(words == "BACK", -1)
        masked += back.sum()
        solution = np.zeros(len(words), bool)
        solution[prompt:length] = True
        np.testing.assert_array_equal(mask[row], solution & ~back)
        solution[1:] = np.arange(1, len(words)) < length
        np.testing.assert_array_equal(everything[row], solution & ~back)
    assert masked > 3


def test_spots_stand_before_and_on_each_name(reference):
    _, bank = reference
    words = np.array(bank.vocabulary)[bank.tokens()]
    for row, problem in enumerate(problems(CONFIG)):
        count = len(problem.sentences)
        names = [problem.names[sentence.parameter] for sentence in problem.sentences]
        assert list(words[row, bank.names[row, :count]]) == names
        assert set(words[row, bank.spots[row, :count]]) <= {"?", ";", "BACK"}
        np.testing.assert_array_equal(bank.spots[row, :count] + 1, bank.names[row, :count])
        assert not bank.spots[row, count:].any()


@pytest.mark.parametrize("first", [False, True])
def test_labels_against_plain_recursion(tmp_path, first):
    """Each label from the definitions alone, one parameter at a time."""
    config = ReasoningConfig(retry=0.3, question_first=first)
    bank = write(tmp_path, config, labels=True)
    concepts = {name: bank.concept(name) for name in ("dep", "nece", "known", "value", "can_next", "nece_next")}
    for row, problem in enumerate(problems(config)):
        graph = problem.graph
        named = {INDEX[parameter] for parameter in graph.named}

        def depends(a, b, graph=graph):
            inputs = graph.definitions[a].inputs
            return b in inputs or any(depends(given, b, graph) for given in inputs)

        asked = graph.order[-1]
        stated = {}
        for spot, sentence in enumerate(problem.sentences):
            for index, parameter in enumerate(PARAMETERS):
                valid = index in named
                needed = valid and (parameter == asked or depends(asked, parameter))
                able = (
                    valid and parameter not in stated and all(g in stated for g in graph.definitions[parameter].inputs)
                )
                expected = {"known": parameter in stated, "can_next": able, "nece_next": able and needed}
                for name, label in expected.items():
                    assert concepts[name].valid[row, spot, index] == valid
                    assert not valid or concepts[name].labels[row, spot, index] == label, name
                assert concepts["value"].valid[row, spot, index] == (parameter in stated)
                if parameter in stated:
                    assert concepts["value"].labels[row, spot, index] == stated[parameter]
                if spot == 0 and valid:
                    assert concepts["nece"].labels[row, 0, index] == needed
                    for other in graph.named:
                        if other != parameter:
                            assert concepts["dep"].valid[row, 0, index, INDEX[other]]
                            assert concepts["dep"].labels[row, 0, index, INDEX[other]] == depends(parameter, other)
            if not sentence.struck:
                stated[sentence.parameter] = graph.values[sentence.parameter]
        for name in ("known", "value"):
            assert not concepts[name].valid[row, len(problem.sentences) :].any()
        words = [bank.vocabulary[token] for token in bank.tokens()[row]]
        # dep is asked where all is defined and, with the question last, nothing is asked yet.
        assert words[concepts["dep"].positions[row, 0]] == ";"
        assert concepts["nece"].positions[row, 0] == bank.prompts[row] - 1
        assert concepts["dep"].control[row] == 0
        assert concepts["nece"].control[row] == (0 if first else concepts["dep"].positions[row, 0])
    assert concepts["value"].classes == 7 and concepts["dep"].classes == 2


def test_processes_change_nothing_and_progress_counts(tmp_path, reference):
    seen = []
    bank = write(tmp_path / "two", processes=2, progress=lambda *numbers: seen.append(numbers))
    assert bank.hash == reference[1].hash and content(tmp_path / "two") == content(reference[0])
    assert seen[0] == (0, COUNT) and seen[-1] == (COUNT, COUNT)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    # A complete bank is read and not made again.
    seen.clear()
    write(tmp_path / "two", progress=lambda *numbers: seen.append(numbers))
    assert seen == [(COUNT, COUNT)]


def test_the_hash_changes_with_what_is_in_the_bank(tmp_path, reference):
    changes = ({"seed": 3}, {"count": 22}, {"labels": True}, {"config": ReasoningConfig(retry=0.3)})
    hashes = {write(tmp_path / str(i), **change).hash for i, change in enumerate(changes)}
    assert len(hashes | {reference[1].hash}) == 5


KILLED = """
import os, signal, sys
from jaxconcepts.tasks import reasoning_bank
from jaxconcepts.tasks.reasoning import ReasoningConfig
folder, event, nth = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
def kill(name, arguments):
    global seen
    if name == event and arguments and str(arguments[0]).startswith(folder + os.sep):
        seen += 1
        if seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
reasoning_bank.write(folder, ReasoningConfig(retry=0.3, retry_masked=True), count=23, seed=2, part_size=4)
"""


@pytest.mark.parametrize(
    ("event", "nth"), [("open", 2), ("os.rename", 1), ("os.rename", 2), ("os.rename", 5), ("open", 7), ("os.rename", 8)]
)
def test_a_killed_writer_goes_on(tmp_path, reference, event, nth):
    """Killed as it opens or renames a file: the request's, a part's, the last one that says the bank is complete."""
    folder = tmp_path / "bank"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", KILLED, str(folder), event, str(nth)]
    assert subprocess.run(arguments, env=environment).returncode == -signal.SIGKILL
    assert not (folder / "complete.json").exists()
    with pytest.raises(ValueError, match="folder must hold a bank"):
        reasoning_bank.load(folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.npz")}
    seen = []
    assert write(folder, progress=lambda *numbers: seen.append(numbers)).hash == reference[1].hash
    # Parts that were done are kept; nothing else is left behind.
    assert all((folder / name).stat().st_mtime_ns == time for name, time in before.items())
    assert seen[0][0] == min(COUNT, PART * len(before)) and content(folder) == content(reference[0])


ORPHANS = """
import multiprocessing, os, signal, sys
from jaxconcepts.tasks import reasoning_bank
from jaxconcepts.tasks.reasoning import ReasoningConfig
def progress(done, count):
    if done:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
reasoning_bank.write(sys.argv[1], ReasoningConfig(), count=100_000, part_size=50, processes=2, progress=progress)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_workers_end_with_a_killed_writer(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", ORPHANS, str(tmp_path / "bank")]
    # A file and no pipe: workers that lived on would hold it open.
    output = tmp_path / "workers.txt"
    with output.open("w") as file:
        subprocess.run(arguments, env=environment, stdout=file)
    workers = [int(number) for number in output.read_text().split()]
    assert workers
    limit = time.monotonic() + 30
    while any(running(worker) for worker in workers) and time.monotonic() < limit:
        time.sleep(0.05)
    alive = [worker for worker in workers if running(worker)]
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive


def running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_damaged_or_missing_part_is_named_and_mended(tmp_path, reference):
    write(tmp_path)
    first, second = sorted(tmp_path.glob("part-*"))[:2]
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.unlink()
    with pytest.raises(ValueError, match=r"parts missing or damaged .*000000, 000001"):
        reasoning_bank.load(tmp_path)
    assert write(tmp_path).hash == reference[1].hash and content(tmp_path) == content(reference[0])
    reasoning_bank.load(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_a_damaged_request_is_named(tmp_path, damage):
    write(tmp_path)
    (tmp_path / "request.json").write_text(damage)
    for call in (write, reasoning_bank.load):
        with pytest.raises(ValueError, match=r"request\.json is damaged"):
            call(tmp_path)


def test_another_bank_is_not_overwritten(tmp_path):
    write(tmp_path / "bank", count=4)
    before = content(tmp_path / "bank")
    with pytest.raises(ValueError, match=r"holds another bank.*count: was 4, now 5"):
        write(tmp_path / "bank", count=5)
    with pytest.raises(ValueError, match=r"task\.modulus: was 7, now 5"):
        write(tmp_path / "bank", ReasoningConfig(modulus=5, retry=0.3, retry_masked=True), count=4)
    assert content(tmp_path / "bank") == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    for folder in (tmp_path / "notes", tmp_path / "notes" / "mine.txt"):
        with pytest.raises(ValueError, match="folder must be new, empty or a bank's"):
            write(folder)
    assert json.loads((tmp_path / "bank" / "request.json").read_text())["count"] == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count must be an integer of at least 1, got 0"),
        ({"count": 2.0}, "count must be an integer"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"processes": 0}, "processes must be"),
        ({"part_size": True}, "part_size must be"),
        (
            {"config": ReasoningConfig(max_instances=2, operations=(1, 99), max_tries=20)},
            r"task\.operations must be at most",
        ),
    ],
)
def test_bad_numbers_leave_no_folder(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path / "bank", **changes)
    assert not (tmp_path / "bank").exists()


def test_a_window_holds_the_longest_problem(reference):
    _, bank = reference
    assert bank.tokens(bank.longest + 5).shape == bank.loss_mask(bank.longest + 5).shape == (COUNT, bank.longest + 5)
    with pytest.raises(ValueError, match=rf"window must hold the longest problem, {bank.longest} tokens, got 10"):
        bank.tokens(10)
    with pytest.raises(ValueError, match="labels=True"):
        bank.concept("dep")
    with pytest.raises(ValueError, match="name must be one of dep"):
        bank.concept("depth")
    with pytest.raises(ValueError, match="on must be solution or all"):
        bank.loss_mask(on="answer")
