"""What a killed process leaves half-written is removed when the run directory is opened again."""

import json

import jax.numpy as jnp

from jaxconcepts import store


def test_half_written_notes_of_a_whole_checkpoint_are_removed(tmp_path):
    workdir = tmp_path / "run"
    with store.open_run(workdir, {"seed": 0}) as run:
        run.restore("a", {"step": jnp.zeros((2,), jnp.int32)})
        run.save("a", 10, {"step": jnp.zeros((2,), jnp.int32)})
    (folder,) = (workdir / "checkpoints" / "a").iterdir()
    left = folder / "sha256.json.tmp"
    left.write_text(json.dumps({})[:1])
    with store.open_run(workdir, {"seed": 0}):
        pass
    assert not left.exists()
    assert store.checkpoints(workdir, "a") == [10]
