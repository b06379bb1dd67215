"""Where the output goes: a reader that has gone, a closed terminal, a full disk, streams that nobody opened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pulses import without_pulses

ROOT = Path(__file__).parents[1]
MODULE = [sys.executable, "-m", "jaxconcepts"]


def run(command, **streams):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, cwd=ROOT, text=True, check=False, **streams)


@pytest.fixture
def unread():
    """The writing end of a pipe whose reader has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("flags", [["train", "--help"], ["plan", "--model=gpt-2", "--local"]])
def test_a_command_whose_reader_has_gone_is_stopped_as_by_a_signal(unread, flags):
    done = run([*MODULE, *flags], stdout=unread, stderr=subprocess.PIPE)
    assert (done.returncode, without_pulses(done.stderr)) == (75, "stopped by SIGPIPE; start again to continue\n")


LOGGING = """
from jaxconcepts.commands import command_line
from jaxconcepts.runs import preemption
command_line.to_terminal()
with preemption.stop_requested() as received:
    command_line.log.info("a line")
    print([int(number) for number in received], file=sys.stderr)
"""


@pytest.mark.parametrize(("where", "received"), [("unread", [13]), ("/dev/full", [])])
def test_a_line_that_cannot_be_written_stops_unsaved_work_only_where_its_reader_has_gone(unread, where, received):
    """Without a traceback of the log, in either case."""
    output = unread if where == "unread" else os.open(where, os.O_WRONLY)
    done = run([sys.executable, "-c", "import sys\n" + LOGGING], stdout=output, stderr=subprocess.PIPE)
    first, *rest = done.stderr.splitlines()
    assert first == str(received) and "Logging error" not in done.stderr
    assert bool(received) == any("PreemptedError" in line for line in rest)


def test_an_output_on_a_full_disk_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        done = run([*MODULE, "train", "--help"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1 and done.stderr.startswith("error: the disk is full") and done.stderr.count("\n") == 1


def test_streams_that_are_closed_lead_nowhere():
    """No file that a command opens later may become its standard output."""
    script = "import os; from jaxconcepts import __main__\ntry:\n    __main__.main()\nfinally:\n"
    script += "    names = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]; os._exit(40 + len(set(names)))"
    done = run(["sh", "-c", f"exec '{sys.executable}' -c \"$0\" status --help <&- >&- 2>&-", script])
    assert done.returncode == 41


HUNG_UP = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
from jaxconcepts.runs import preemption
preemption.end_on_signals()
os.kill(os.getpid(), signal.SIGHUP)
time.sleep(0.2)
with preemption.stop_requested() as received:
    os.kill(os.getpid(), signal.SIGHUP)
    assert received == []
print("goes on")
"""


@pytest.mark.parametrize(
    ("disposition", "ends"),
    [("SIG_DFL", (75, "", "stopped by SIGHUP; start again to continue\n")), ("SIG_IGN", (0, "goes on\n", ""))],
)
def test_a_closed_terminal_is_a_signal_unless_nohup_has_it_ignored(disposition, ends):
    done = run([sys.executable, "-c", HUNG_UP, disposition], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == ends


def test_a_closed_terminal_is_collected_where_work_is_unsaved():
    script = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    script += "from jaxconcepts.runs import preemption\n"
    script += "with preemption.stop_requested() as received:\n    os.kill(os.getpid(), signal.SIGHUP); print(received)"
    done = run([sys.executable, "-c", script], capture_output=True)
    assert done.stdout == f"[{int(signal.SIGHUP)}]\n" and "PreemptedError" in done.stderr
