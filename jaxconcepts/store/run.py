"""A run directory open for writing, and its checkpoints."""

from __future__ import annotations

import contextlib
import glob
import io
import logging
import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np
import polars as pl
from etils import epath
from jaxtyping import Float, Int

from jaxconcepts.store import files, manifest, tables
from jaxconcepts.store.opening import check_config, lock, record_provenance, writable

log = logging.getLogger("jaxconcepts.store")

KINDS = ("runs", "metrics", "hidden", "quantities")  # Folders with files of packs.


@contextlib.contextmanager
def open_run(
    workdir: epath.PathLike,
    config: Mapping[str, Any],
    *,
    command: str | None = None,
    device: Mapping[str, Any] | None = None,
    writer: tuple[int, int] = (0, 1),
    keep: int = 2,
    keep_steps: Container[int] = (),
    extend: Callable[[], None] | None = None,
) -> Iterator[Run]:
    """Creates a run directory, or resumes the one that is there, for writing.

    workdir: a folder, local or gs://; made if missing.
    config: nested dict of JSON values. Must equal the one that the workdir was made with.
    command: recorded in provenance.json; this process's command line by default.
    device: recorded there too, e.g. {"platform": "gpu", "kind": "NVIDIA H200", "count": 8}.
    writer: (index, count) of this process among those that write to the workdir together, either because they share
        every pack (one distributed JAX job) or because each has packs of its own (independent shards).
    keep: how many of a pack's newest checkpoints stay. At least 2 lets a damaged one be survived.
    keep_steps: checkpoints at these steps are never deleted. extend: see `opening.check_config`.

    A second process with the same writer index, or with another count, is refused while the first lives. The lock is
    a flock, so it ends with its holder, kill -9 included, and on NFS it holds between machines where flock does. On
    gs:// there is no lock: whatever starts the jobs must see to it that no two write to one workdir.

    Raises WorkdirInUseError, and ValueError for a workdir that cannot be written to or a config that differs.
    """
    index, count = writer
    if not 0 <= index < count:
        raise ValueError(f"writer must be (index, count) with 0 <= index < count, got {writer}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    root = files.resolve(workdir)
    if count > 1 and glob.has_magic(str(root)):
        raise ValueError(f"workdir of several processes must hold none of * ? [, got {root}")
    with contextlib.ExitStack() as held:
        with contextlib.ExitStack() as starting:
            with writable(root):
                for folder in ("metrics", "hidden", "runs", "checkpoints"):
                    (root / folder).mkdir(parents=True, exist_ok=True)
                if files.is_local(root):
                    lock(root, writer, held, starting)
            if count == 1:
                files.remove_temporary(root)
            check_config(root / "config.json", config, extend)
            record_provenance(root / "provenance.json", command, device)
        yield Run(root, writer, keep, keep_steps)


class Run:
    """A run directory open for writing; made by `open_run`.

    Per pack: `restore` first, then `write_runs`, and parts and checkpoints with growing steps, each checkpoint after
    the parts that it covers; anything else is a ValueError. Processes that share their packs (a distributed JAX job)
    call `restore` and `save` together.
    """

    def __init__(self, root: epath.Path, writer: tuple[int, int], keep: int, keep_steps: Container[int]):
        self.workdir = root
        self._count = writer[1]
        self._suffix = "" if self._count == 1 else f".{writer[0]}of{writer[1]}"
        self._keep, self._keep_steps = keep, keep_steps
        self._saved: dict[str, int] = {}
        self._manifests: dict[str, manifest.Manifest] = {}
        self._rows: dict[str, dict[str, int]] = {}  # Of each pack, by `manifest.TABLES`.

    def write_metrics(self, pack: str, step: int, frame: pl.DataFrame) -> None:
        """Writes the rows measured since the last part, in `METRICS`' columns; a nullable column may be left out.

        Raises ValueError for unknown or missing columns, nulls in the others, and rows past `step`.
        """
        frame = tables.conform(frame, tables.METRICS, tables.NULLABLE)
        if frame.height and frame["step"].max() > step:
            raise ValueError(f"metrics of the part at step {step} must not be past it, got step {frame['step'].max()}")
        self._write_part("metrics", pack, step, "parquet", tables.to_parquet(frame), frame.height)

    def write_hidden(
        self,
        pack: str,
        step: int,
        hidden: Float[np.ndarray, "runs layers points width"],
        concepts: Int[np.ndarray, " points"],
        runs: list[str],
    ) -> None:
        """Writes a snapshot of hidden states (kept as float32) for projections."""
        hidden, concepts = np.asarray(hidden, np.float32), np.asarray(concepts)
        if hidden.ndim != 4 or hidden.shape[0] != len(runs) or concepts.shape != hidden.shape[2:3]:
            raise ValueError(
                f"hidden must be [runs, layers, points, width] with {len(runs)} runs and a concept for each point, "
                f"got hidden {hidden.shape} and concepts {concepts.shape}"
            )
        arrays = {"hidden": hidden, "concepts": concepts, "run": np.asarray(runs, np.str_), "step": np.int64(step)}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self._write_part("hidden", pack, step, "npz", buffer.getvalue(), len(runs))

    def write_quantities(self, pack: str, frame: pl.DataFrame) -> None:
        """Adds the units and chances of a pack's metrics, in `QUANTITIES`' columns, to those that are there."""
        frame = tables.conform(frame, tables.QUANTITIES, nullable=("label", "chance"))
        path = self.workdir / "quantities" / f"{files.valid_pack(pack)}{self._suffix}.parquet"
        path.parent.mkdir(exist_ok=True)
        earlier = tables.read_parquet(path) if path.exists() else frame.clear()
        frame = pl.concat([earlier, frame]).unique(maintain_order=True)
        files.write(path, tables.to_parquet(frame))
        self._rows.setdefault(pack, {})["quantities"] = frame.height

    def write_runs(self, pack: str, frame: pl.DataFrame) -> None:
        """Replaces the pack's rows of the runs table: `RUNS`' columns, then any hyper-parameters."""
        frame = tables.conform(frame, tables.RUNS, nullable=("diverged_at",), others=True)
        if not (given := set(frame["status"])) <= set(tables.STATUSES):
            raise ValueError(f"status must be one of {', '.join(tables.STATUSES)}, got {sorted(given)}")
        if frame["run"].is_duplicated().any():
            raise ValueError(f"run must name each run once, got {frame['run'].to_list()}")
        folder, name = self.workdir / "runs", f"{files.valid_pack(pack)}{self._suffix}.parquet"
        listed = self._manifests.get(pack)
        if listed is not None and listed.runs not in (None, frame.height):
            listed.runs = None  # First, so that it never lists other rows than there are.
            manifest.write(self.workdir, listed)
        files.write(folder / name, tables.to_parquet(frame))
        self._rows.setdefault(pack, {})["runs"] = frame.height
        own = re.compile(rf"{re.escape(pack)}\.(\d+of{self._count}\.)?parquet" if self._suffix else re.escape(name))
        for path in files.listing(folder):
            # Rows written when another number of processes shared the pack are replaced too.
            if path.name.startswith(f"{pack}.") and path.suffix == ".parquet" and not own.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def save(self, pack: str, step: int, state: Any) -> None:
        """Commits a checkpoint of a pytree of arrays (typed PRNG keys too), then deletes those that need not stay.

        Returns once it is committed. Saving again at the step last saved or restored does nothing.
        Raises ValueError for a step before that one, OSError where it cannot be written.
        """
        from jaxconcepts.store import checkpointing

        step = files.valid_step(step)
        folder = self.workdir / "checkpoints" / files.valid_pack(pack)
        covered = self._covered(pack)
        if step < covered:
            raise ValueError(f"checkpoints of {pack} must have growing steps, got {step} after {covered}")
        if step == covered:
            return
        checkpointing.check(state)
        listed = self._manifests[pack]
        vars(listed).update(covers=step, **self._rows.get(pack, {}))
        manifest.write(self.workdir, listed)
        checkpointing.save(folder / f"{step:09d}", state)
        self._saved[pack] = step
        if checkpointing.is_primary():
            for old in checkpoints(self.workdir, pack)[: -self._keep]:
                if old not in self._keep_steps:
                    files.remove(folder / f"{old:09d}")

    def restore(self, pack: str, like: Any) -> tuple[int, Any]:
        """Returns (step, state) of the pack's newest readable checkpoint, or (0, None), and drops the parts past it.

        like: tree of arrays, or of jax.ShapeDtypeStruct; the state comes back with its structure, shapes, dtypes and
            shardings, whatever devices it was saved from. An abstract leaf without a sharding goes to the first device.
            Or a function that gives the tree for the stored shapes, a dict by dotted path.

        A checkpoint that cannot be read is renamed to <step>.unreadable, and an older one taken. A part that is damaged
        or missing voids the checkpoints that cover it, so that it is written anew; one that no run has written is
        renamed to <name>.foreign. All are logged as warnings.
        Raises ValueError if the checkpoint's arrays are not those of `like`: a different program made it.
        """
        from jaxconcepts.store import checkpointing

        folder = self.workdir / "checkpoints" / files.valid_pack(pack)
        manifests = manifest.read(self.workdir, pack)
        parts, damaged, foreign = tables.check_parts(self.workdir, pack, manifests)
        steps = checkpoints(self.workdir, pack)
        checkpointing.wait_for_all(f"{pack} listed")
        step, state = -1, None
        for candidate in reversed(steps):
            path = folder / f"{candidate:09d}"
            if voiding := [text for part_step, text in damaged if part_step <= candidate]:
                log.warning("going back to a checkpoint before %s: %s", path, ", ".join(voiding))
                if checkpointing.is_primary():
                    files.remove(path)
                continue
            try:
                step, state = candidate, checkpointing.load(path, like)
                break
            except checkpointing.UnreadableError as error:
                log.warning("going back to a checkpoint before %s, now %s.unreadable: %s", path, path.name, error)
                if checkpointing.is_primary():
                    aside = folder / f"{path.name}.unreadable"
                    files.remove(aside)
                    path.rename(aside)
        past = [path for part_step, path in parts if part_step > step]
        if past:
            start = f"step {step}" if step >= 0 else "the beginning (no checkpoint)"
            log.warning("%s resumes at %s; %d later parts will be written again", pack, start, len(past))
        if checkpointing.is_primary():
            # The manifests first: they never list a part that is not there.
            for listed in manifests:
                if listed.suffix != self._suffix and listed.suffix.partition("of")[2] != str(self._count):
                    listed.runs = None  # Another number of processes has written those rows; ours replace them.
                manifest.write(self.workdir, listed.up_to(step))
            for path in foreign:
                log.warning("%s is in no manifest, so no run wrote it; it is renamed to %s.foreign", path, path.name)
                path.rename(path.with_name(f"{path.name}.foreign"))
            for path in past + (files.of_pack(self.workdir / "quantities", pack) if step < 0 else []):
                path.unlink(missing_ok=True)
            files.remove_temporary(self.workdir, pack)
        checkpointing.wait_for_all(f"{pack} dropped")
        self._saved[pack] = step
        self._manifests[pack] = self._manifest(pack, manifests, parts, step)
        return max(step, 0), state

    def drop(self, pack: str) -> None:
        """Deletes everything of a pack: parts, rows of the runs table, checkpoints."""
        from jaxconcepts.store import checkpointing

        if checkpointing.is_primary():
            # Manifests first, checkpoints last: whoever is killed here and comes back still drops the parts past them.
            manifest.remove(self.workdir, files.valid_pack(pack))
            for path in [path for kind in KINDS for path in files.of_pack(self.workdir / kind, pack)]:
                path.unlink(missing_ok=True)
            files.remove(self.workdir / "checkpoints" / pack)
        checkpointing.wait_for_all(f"{pack} deleted")
        for known in (self._saved, self._manifests, self._rows):
            known.pop(pack, None)

    def _manifest(self, pack, manifests, parts, step) -> manifest.Manifest:
        """The manifest of this writer's parts up to the step; of parts from before there were manifests, from them."""
        for listed in manifests:
            if listed.suffix == self._suffix:
                return listed.up_to(step)
        made = manifest.Manifest(pack, self._suffix, step)
        for part_step, path in parts:
            if part_step <= step and re.fullmatch(
                rf"{re.escape(pack)}\.\d{{9}}{re.escape(self._suffix)}\.\w+", path.name
            ):
                made.parts[f"{path.parent.name}/{path.name}"] = (-1, manifest.digest(path.read_bytes()))
        return made

    def _write_part(self, kind: str, pack: str, step: int, extension: str, data: bytes, rows: int) -> None:
        if files.valid_step(step) <= (covered := self._covered(pack)):
            raise ValueError(f"{kind} of {pack} at step {step} must come before the checkpoint at step {covered}")
        path = self.workdir / kind / f"{pack}.{step:09d}{self._suffix}.{extension}"
        if path.exists():
            raise ValueError(f"{kind} of {pack} at step {step} must be written once, but there is {path}")
        files.write(path, data)
        self._manifests[pack].parts[f"{kind}/{path.name}"] = (rows, manifest.digest(data))

    def _covered(self, pack: str) -> int:
        """The step up to which this pack's parts are covered by a checkpoint, -1 before the first."""
        if files.valid_pack(pack) not in self._saved:
            raise ValueError(f"restore must come before anything is written for pack {pack}")
        return self._saved[pack]


def checkpoints(workdir: epath.PathLike, pack: str) -> list[int]:
    """The steps of the pack's complete checkpoints, ascending."""
    folders = files.listing(files.resolve(workdir) / "checkpoints" / files.valid_pack(pack))
    found = [path for path in folders if re.fullmatch(r"\d{9}", path.name)]
    return sorted(int(path.name) for path in found if not files.is_uncommitted(path))


def load_checkpoint(workdir: epath.PathLike, pack: str, step: int, like: Any) -> Any:
    """The state saved at that step, in the structure, shapes, dtypes and shardings of `like` (see `Run.restore`).

    Raises ValueError for a step without a checkpoint or arrays other than `like`'s, DamagedFileError where unreadable.
    """
    from jaxconcepts.store import checkpointing

    if step not in (steps := checkpoints(workdir, pack)):
        raise ValueError(f"step must be one of {pack}'s checkpoints {steps}, got {step}")
    path = files.resolve(workdir) / "checkpoints" / pack / f"{step:09d}"
    try:
        return checkpointing.load(path, like)
    except checkpointing.UnreadableError as error:
        raise files.DamagedFileError(f"damaged checkpoint {path}: {error}") from error
