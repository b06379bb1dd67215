"""Several processes as one job, by JAX's own distributed runtime: joining, agreeing, and telling all the same.

A process joins a job when told by flags or by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or when
its surroundings say so: a Slurm step of several tasks, a GKE or Cloud TPU slice of several hosts, a multislice job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> bool:
    """Joins the job that the arguments, the environment or the cluster name; whether there is one.

    coordinator: "host:port" of process 0. Before any other use of jax. Raises ValueError where only some of the three
    are given, or process_id is not below num_processes.
    """
    given = {
        "coordinator": coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        "num_processes": _number("JAX_NUM_PROCESSES", num_processes),
        "process_id": _number("JAX_PROCESS_ID", process_id),
    }
    known = [name for name, value in given.items() if value is not None]
    if not known and not in_cluster(os.environ):
        return False
    if known and len(known) < 3 and not in_cluster(os.environ):
        missing = sorted(set(given) - set(known))
        raise ValueError(f"a distributed job needs coordinator, num_processes and process_id; missing: {missing}")
    if len(known) == 3 and not 0 <= given["process_id"] < given["num_processes"]:
        raise ValueError(f"process_id must be from 0 to num_processes - 1 = {given['num_processes'] - 1}, got {given}")
    jax.distributed.initialize(given["coordinator"], given["num_processes"], given["process_id"])
    return True


def in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether the environment is that of a job of several processes which `jax.distributed.initialize` understands."""
    slurm = int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "SLURM_LOCALID" in environment
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return slurm or len([host for host in hosts if host]) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in environment


def tell_all(value: Any) -> Any:
    """Process 0's value (of JSON types), in every process; all call it together."""
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(data.size, np.int32)))
    padded = np.zeros(size, np.uint8)
    padded[: min(size, data.size)] = data[:size]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(padded), np.uint8).tobytes())


_votes: list[jax.Array] = []


def largest(*votes: int) -> tuple[int, ...]:
    """For each vote (at least 0, or a flag), the largest of any process, the same answer in all, which call this
    together.

    With several processes the answer is that of the call before (0 at first), so that no process waits for the
    devices here.
    """
    if jax.process_count() == 1:
        return votes
    sharding, over_processes = _voting()
    own = np.asarray([votes], np.int32)
    given = jax.make_array_from_callback((jax.device_count(), len(votes)), sharding, lambda index: own)
    _votes.append(over_processes(given))
    if len(_votes) == 1:
        return (0,) * len(votes)
    return tuple(int(vote) for vote in np.asarray(_votes.pop(0)))


@cache
def _voting():
    mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    whole = NamedSharding(mesh, PartitionSpec())
    return NamedSharding(mesh, PartitionSpec("all")), partial(jax.jit, out_shardings=whole)(lambda votes: votes.max(0))


def _number(variable: str, given: int | None) -> int | None:
    text = os.environ.get(variable)
    return given if given is not None or not text else int(text)
