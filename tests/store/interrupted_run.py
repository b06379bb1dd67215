"""A short deterministic run that keeps a store, started again and again by a server, killed at moments it is told.

Each line of standard input is a JSON object {"workdir": ..., "event": n | null, "seconds": s | null}. For each, the
server forks a process that does the whole run (resuming what is there), killed by SIGKILL at its n-th file operation
in the workdir or after s seconds; the answer is a line with the exit code, -9 where it was killed. Forking spares each
run the seconds of importing jax and Orbax; the server itself never starts a jax backend, so its forks are sound.
"""

import json
import os
import signal
import sys
import time
import traceback
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint  # noqa: F401
import polars as pl

from jaxconcepts import store
from jaxconcepts.store import checkpointing  # noqa: F401

PACKS = ("a", "b-1")
LAST_STEP = 60


class Moments(NamedTuple):
    count: jax.Array
    nothing: None


def initial(pack):
    key = jax.random.wrap_key_data(np.array([PACKS.index(pack), 0], np.uint32))
    return {"x": jax.numpy.asarray(np.zeros(4)), "key": key, "moments": (Moments(jax.numpy.asarray(0), None), ())}


def chunk(state):
    """Adds noise drawn from the key, in NumPy because compiling would take most of the run's time."""
    key_data = np.asarray(jax.random.key_data(state["key"]))
    moments = Moments(jax.numpy.asarray(int(state["moments"][0].count) + 10), None)
    return {
        "x": jax.numpy.asarray(np.asarray(state["x"]) / 2 + np.random.default_rng(key_data).normal(size=4)),
        "key": jax.random.wrap_key_data(key_data + np.uint32(1)),
        "moments": (moments, ()),
    }


def run(workdir):
    with store.open_run(workdir, {"task": {"dim": 4}}, command="interrupted_run", keep_steps=(20,)) as kept:
        for pack in PACKS:
            names = [f"{pack}{index}" for index in range(2)]
            step, state = kept.restore(pack, like=initial(pack))
            state = initial(pack) if state is None else state
            write_runs(kept, pack, names, step)
            while step < LAST_STEP:
                state, step = chunk(state), step + 10
                values = np.asarray(state["x"], np.float64)
                rows = [
                    {"run": name, "step": at, "metric": "loss", "concept": concept, "value": values[concept] + at}
                    for name in names
                    for at in (step - 5, step)
                    for concept in range(4)
                ]
                kept.write_metrics(pack, step, pl.DataFrame(rows))
                if step % 20 == 0:
                    hidden = np.broadcast_to(values, (2, 3, 5, 4))
                    kept.write_hidden(pack, step, hidden, np.arange(5), names)
                    kept.save(pack, step, state)
                    write_runs(kept, pack, names, step)


def write_runs(kept, pack, names, step):
    rows = {"run": names, "point": ["p"] * 2, "status": "done" if step == LAST_STEP else "running", "seed": [0, 1]}
    kept.write_runs(pack, pl.DataFrame(rows | {"step": step, "task.dim": 4}))


def kill_at_event(workdir, number):
    """Kills this process as it begins its number-th operation on a file in the workdir."""
    operations = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")
    seen = 0

    def count(event, arguments):
        nonlocal seen
        if event in operations and str(arguments[0]).startswith(workdir):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def serve():
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                if order["event"]:
                    kill_at_event(order["workdir"], order["event"])
                run(order["workdir"])
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        if order["seconds"]:
            time.sleep(order["seconds"])
            os.kill(child, signal.SIGKILL)  # A child that has ended is a zombie until it is waited for.
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
