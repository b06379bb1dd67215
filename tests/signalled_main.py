"""Runs the command line again and again for a server's client, and signals it at moments that it is told.

Each line of standard input is a JSON object {"arguments": [...], "output": file, "signal": number, "match": pattern,
"nth": n, "draw": bool, "imports": [modules that the server is to have, optional]}. For each, the server forks a process
that runs `python -m jaxconcepts <arguments>`, which sends itself the signal as it begins its n-th operation on a file
whose path matches; the answer is a line with the exit code (-9 where it was killed) and the number of such operations
that were begun. With "draw" false no report is drawn, which takes longer than all the rest. Forking spares each run the
seconds of importing jax; the server itself never starts a jax backend, so its forks are sound.
"""

import importlib
import json
import mmap
import os
import re
import sys
import traceback

import jax  # noqa: F401
import orbax.checkpoint  # noqa: F401

from jaxconcepts import __main__, store  # noqa: F401
from jaxconcepts.figures import report
from jaxconcepts.runs import loop as execution  # noqa: F401
from jaxconcepts.store import checkpointing  # noqa: F401

OPERATIONS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


def signal_at(order, seen):
    pattern = re.compile(order["match"])

    def count(event, arguments):
        if event in OPERATIONS and arguments and pattern.search(str(arguments[0])):
            number = int.from_bytes(seen[:4], "little") + 1
            seen[:4] = number.to_bytes(4, "little")
            if number == order["nth"]:
                os.kill(os.getpid(), order["signal"])

    sys.addaudithook(count)


def run(order, seen):
    output = os.open(order["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.argv = ["jaxconcepts", *order["arguments"]]
    signal_at(order, seen)
    if not order["draw"]:
        report.write_report = lambda workdir: f"{workdir}/report.html (not drawn)"
    code = 1
    try:
        code = __main__.main()
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve():
    for line in sys.stdin:
        order, seen = json.loads(line), mmap.mmap(-1, 4)
        for name in order.get("imports", ()):
            importlib.import_module(name)
        child = os.fork()
        if child == 0:
            run(order, seen)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([code, int.from_bytes(seen[:4], "little")]), flush=True)


if __name__ == "__main__":
    serve()
