"""Processes that run the command line, forked from one that has imported JAX: each start is spared those seconds."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

PRELOADED = ["jax", "orbax.checkpoint", "jaxconcepts.__main__", "jaxconcepts.runs.loop", "jaxconcepts.figures.report"]


class Forked:
    """`python -m jaxconcepts ARGUMENTS` as a process of its own; what tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        receiver, sender = context.Pipe(duplex=False)
        # The server is started by the first process, and JAX reads most of its variables when it is imported.
        with _environment(environment):
            self._process = context.Process(target=_main, args=(list(arguments), dict(environment), sender))
            self._process.start()
        sender.close()
        self.stdout = os.fdopen(os.dup(receiver.fileno()), encoding="utf-8")
        receiver.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What is left of its output, once it has ended; it is killed if that takes longer than `timeout` seconds."""
        timer = threading.Timer(timeout or threading.TIMEOUT_MAX, self.kill)
        timer.daemon = True
        timer.start()
        output = "" if self.stdout.closed else self.stdout.read()
        self._process.join()
        timer.cancel()
        self.stdout.close()
        return output, None


@contextmanager
def _environment(values: Mapping[str, str]):
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _main(arguments, environment, sender):
    for stream in (1, 2):
        os.dup2(sender.fileno(), stream)
    sender.close()
    # The server's own are tied to what they wrote to there.
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    _keep_compiled()
    sys.argv = ["jaxconcepts", *arguments]
    from jaxconcepts.__main__ import main

    try:
        raise SystemExit(main())
    finally:
        # As at the end of any interpreter; multiprocessing leaves them out.
        atexit._run_exitfuncs()


def _keep_compiled():
    """JAX keeps what the first process of a job compiles. On CPU the others' programs are called otherwise and would be
    compiled at every start: with this each process keeps its own."""
    from jax._src import compiler

    compiler.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0, client=None))
