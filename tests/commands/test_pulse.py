"""Lines in silences: what was last said, for how long."""

import contextlib
import importlib
import logging
import re
import sys
import time

import pytest

from jaxconcepts import __main__ as main
from jaxconcepts.commands import pulse


def test_a_silence_is_filled_with_what_goes_on(capsys, monkeypatch):
    log = logging.getLogger("jaxconcepts")
    monkeypatch.setattr(log, "handlers", [])
    with pulse.beating(0.3):
        time.sleep(0.75)
        log.warning("compiling everything  at 3 steps/s")
        time.sleep(0.75)
    time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+ s", "N s", line) for line in lines][:1] == ["  … starting: N s"]
    assert "  … compiling everything: 0 s" in lines and len(lines) <= 5
    assert log.handlers == []


def test_what_speaks_often_is_left_alone(capsys):
    log = logging.getLogger("jaxconcepts.test_pulse")
    beat = pulse.Pulse(1.0)
    log.addHandler(beat)
    try:
        for _ in range(8):
            log.warning("a line")
            time.sleep(0.1)
    finally:
        log.removeHandler(beat)
        beat.stop()
    assert "…" not in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(main.COMMANDS))
def test_no_command_is_silent(command, monkeypatch):
    beats = []

    @contextlib.contextmanager
    def beating():
        beats.append("begun")
        yield
        beats.append("ended")

    monkeypatch.setattr(pulse, "beating", beating)
    monkeypatch.setattr(main.preemption, "end_on_signals", lambda: None)
    monkeypatch.setattr(main.compiled, "keep", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jaxconcepts", command])
    module = importlib.import_module(f"jaxconcepts.commands.{command}")
    monkeypatch.setattr(module, "run", lambda argv: beats.append("run") or 0)
    assert main.main() == 0
    assert beats == ["begun", "run", "ended"]
