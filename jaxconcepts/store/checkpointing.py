"""A pytree of arrays to a folder and back, with Orbax: the part of the store that needs jax.

Leaves are stored in a flat dict by path ("params.block.kernel"), so containers (named tuples, empty optimiser states)
come from `like` and never from the file; typed PRNG keys are stored as their key data. The folder appears under its
name only when it is whole: by rename on a local disk, by a commit file on gs://.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from jaxconcepts.store import files


class UnreadableError(Exception):
    """The folder does not hold a whole tree."""


def save(path: epath.Path, state: Any) -> None:
    """Writes the tree; returns once it is committed. All processes of a distributed job call it together.

    Raises ValueError for a leaf that is no jax array or two with the same path, OSError if it cannot be written.
    """
    leaves = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in _leaves(state).items()}
    try:
        with _said_once(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path, leaves)
            checkpointer.wait_until_finished()
    except Exception as error:
        if files.says_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(f"cannot write checkpoint {path}: {error}") from error


def load(path: epath.Path, like: Any) -> Any:
    """Reads the tree with the structure, shapes, dtypes and shardings of `like` (arrays or jax.ShapeDtypeStruct).

    like: the tree, or a function of the stored shapes, a dict by dotted path, that gives it.

    Raises ValueError if the stored arrays are not those of `like`, UnreadableError if they cannot be read.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            described = checkpointer.metadata(path)
        except (ValueError, OSError, KeyError) as error:
            raise UnreadableError(f"its description cannot be read ({type(error).__name__}: {error})") from error
        described = getattr(described, "item_metadata", described)  # Orbax 0.11 gives the tree's description itself.
        if described is None:
            raise UnreadableError("its description cannot be read")
        if callable(like):
            like = like({name: tuple(leaf.shape) for name, leaf in described.tree.items()})
        leaves = _leaves(like)
        wanted = {name: _abstract(leaf) for name, leaf in leaves.items()}
        stored, expected = (
            {name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for name, leaf in arrays.items()}
            for arrays in (described.tree, wanted)
        )
        if differing := files.differences(stored, expected, ("stored", "expected", "nothing")):
            raise ValueError(f"checkpoint {path} holds other arrays than this program's: {differing}")
        state, cause = None, None
        try:
            state = checkpointer.restore(path, wanted)
        except (ValueError, OSError, KeyError) as error:
            cause = error
    # Each process reads its own shards; if one of them cannot, all must take the older checkpoint together.
    if jax.process_count() > 1 and not multihost_utils.process_allgather(np.asarray(cause is None)).all():
        cause = cause or RuntimeError("another process cannot read it")
    if cause is not None:
        raise UnreadableError(f"its arrays cannot be read ({cause})") from cause
    restored = [_as_key(state[name], leaf) if _is_key(leaf) else state[name] for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def is_primary() -> bool:
    """Whether this process is the one that deletes and renames for its distributed job."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Waits until every process of a distributed job has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Keeps Orbax from printing the tracebacks of an error that it raises as well.

    Where it raises, this stays so: the other writes under way fail too, each in its own thread, and tell of it late.
    """
    logs = [logging.getLogger(name) for name in ("absl", "asyncio")]
    quiet, printed = lambda record: not record.exc_info, sys.unraisablehook

    def print_others(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            printed(unraisable)

    for log in logs:
        log.addFilter(quiet)
    sys.unraisablehook = print_others
    yield
    for log in logs:
        log.removeFilter(quiet)
    sys.unraisablehook = printed


def _leaves(tree: Any) -> dict[str, Any]:
    pairs = jax.tree_util.tree_leaves_with_path(tree)
    leaves = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in pairs}
    if len(leaves) != len(pairs):
        raise ValueError("a checkpoint's leaves must have distinct paths when joined by dots")
    for name, leaf in leaves.items():
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            raise ValueError(f"a checkpoint's leaves must be jax arrays, got {type(leaf).__name__} at {name}")
    return leaves


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_key(data: jax.Array, like: Any) -> jax.Array:
    found = []  # key_impl takes no ShapeDtypeStruct, but it takes a tracer of one.
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct(like.shape, like.dtype))
    return jax.random.wrap_key_data(data, impl=found[0])
