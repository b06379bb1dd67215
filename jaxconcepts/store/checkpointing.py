"""A pytree of arrays to a folder and back, with Orbax: the part of the store that needs jax.

Leaves are stored in a flat dict by path ("params.block.kernel"), so containers (named tuples, empty optimiser states)
come from `like` and never from the file; typed PRNG keys are stored as their key data. The folder appears under its
name only when it is whole: by rename on a local disk, by a commit file on gs://.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from jaxconcepts import nested
from jaxconcepts.store import files

DIGESTS = "sha256.json"
"""The hash of every file of a checkpoint: Orbax notices no flipped bit in an array's data. A bucket checks its own."""


class UnreadableError(Exception):
    """The folder does not hold a whole tree."""


def save(path: epath.Path, state: Any) -> None:
    """Writes the tree; returns once it is committed. All processes of a distributed job call it together.

    Raises ValueError for a leaf that is no jax array or two with the same path, OSError if it cannot be written.
    """
    leaves = {name: jax.random.key_data(leaf) if _is_key(leaf) else leaf for name, leaf in _leaves(state).items()}
    try:
        with _said_once(), _without_magic(path) as plain, ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(plain, leaves)
            checkpointer.wait_until_finished()
        if is_primary() and files.is_local(path):
            files.write(path / DIGESTS, json.dumps(_digests(path)).encode())
    except Exception as error:
        if files.says_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(f"cannot write checkpoint {path}: {error}") from error


def load(path: epath.Path, like: Any) -> Any:
    """Reads the tree with the structure, shapes, dtypes and shardings of `like` (arrays or jax.ShapeDtypeStruct).

    like: the tree, or a function of the stored shapes, a dict by dotted path, that gives it.

    Raises ValueError if the stored arrays are not those of `like`, UnreadableError if they cannot be read.
    """
    damaged = _damaged_files(path) if is_primary() else []
    if jax.process_count() > 1:
        damaged = damaged or ["a file"] * int(multihost_utils.process_allgather(np.asarray(len(damaged))).max())
    if damaged:
        raise UnreadableError(f"not as it was written: {', '.join(damaged)}")
    state, cause = None, None
    with _said_once(), _without_magic(path) as plain, ocp.StandardCheckpointer() as checkpointer:
        described = _described(checkpointer, plain)
        if callable(like):
            like = like({name: tuple(leaf.shape) for name, leaf in described.items()})
        leaves = _leaves(like)
        wanted = {name: _abstract(leaf) for name, leaf in leaves.items()}
        stored, expected = (
            {name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for name, leaf in arrays.items()}
            for arrays in (described, wanted)
        )
        if differing := nested.differences(stored, expected, ("stored", "expected", "nothing")):
            raise ValueError(f"checkpoint {path} holds other arrays than this program's: {differing}")
        try:
            state = checkpointer.restore(plain, wanted)
        except Exception as error:  # The bytes may be anything, and so may what Orbax raises for them.
            cause = error
    # Each process reads its own shards; if one of them cannot, all must take the older checkpoint together.
    if jax.process_count() > 1 and not multihost_utils.process_allgather(np.asarray(cause is None)).all():
        cause = cause or RuntimeError("another process cannot read it")
    if cause is not None:
        raise UnreadableError(f"its arrays cannot be read ({cause})") from cause
    restored = [_as_key(state[name], leaf) if _is_key(leaf) else state[name] for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(like), restored)


def check(state: Any) -> None:
    """Raises ValueError where `save` would."""
    _leaves(state)


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


@contextlib.contextmanager
def _without_magic(path: epath.Path) -> Iterator[epath.Path]:
    """The same folder by a path without * ? and [, which Orbax's own globs would take for patterns."""
    if not files.is_local(path) or not glob.has_magic(os.fspath(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        if glob.has_magic(folder):
            raise ValueError(f"TMPDIR must hold none of * ? [ for a workdir that does, got {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.parent, os.path.join(folder, "to"))
        yield epath.Path(folder) / "to" / path.name


def _described(checkpointer: ocp.StandardCheckpointer, path: epath.Path) -> Any:
    """The stored arrays by name, with shape and dtype."""
    try:
        described = checkpointer.metadata(path)
        described = getattr(described, "item_metadata", described)  # Orbax 0.11 gives the tree's description itself.
        tree = described.tree
        _ = [(tuple(leaf.shape), np.dtype(leaf.dtype)) for leaf in tree.values()]
    except Exception as error:  # The bytes may be anything, and so may what Orbax raises for them.
        raise UnreadableError(f"its description cannot be read ({type(error).__name__}: {error})") from error
    return tree


def _digests(path: epath.Path) -> dict[str, str]:
    """The SHA-256 of each file in the folder, by its path in it."""
    digests = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            if name != DIGESTS:
                with open(file, "rb") as opened:
                    digests[os.path.relpath(file, path)] = hashlib.file_digest(opened, "sha256").hexdigest()
    return digests


def _damaged_files(path: epath.Path) -> list[str]:
    """The files that are not as they were written; none where that is not known."""
    if not files.is_local(path) or not (path / DIGESTS).exists():
        return []
    try:
        written = dict(json.loads((path / DIGESTS).read_text()))
    except (ValueError, TypeError):
        return [DIGESTS]
    there = _digests(path)
    return sorted(name for name in written if written[name] != there.get(name))


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
