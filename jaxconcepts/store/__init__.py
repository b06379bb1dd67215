"""The run directory: tidy tables, checkpoints and provenance, each row kept exactly once however often a run is killed.

    workdir/config.json                   the full configuration
            earlier.json                  those that it had before its runs were made longer, if they were
            provenance.json               versions, device, command, time, git revision; one entry more per resume
            metrics/<pack>.<step>.parquet tidy rows (`METRICS`) up to and including <step>
            hidden/<pack>.<step>.npz      hidden states for projections
            runs/<pack>.parquet           a row a run: status and hyper-parameters
            quantities/<pack>.parquet     unit and chance of each metric of each run (`QUANTITIES`)
            checkpoints/<pack>/<step>/    Orbax, and the hash of every file
            manifests/<pack>.json         which parts there must be, with their rows and hashes (see `manifest`)
            <study>/<kind>/<name>.parquet what a study of the finished run found (see `results`)

A *pack* is a set of runs trained together. The rule that makes it exact: a part appears whole (temporary name, then
rename), parts come before the checkpoint that covers them, and `Run.restore` drops every part past the checkpoint it
returns, which the resumed run then writes again. Reading takes no lock and works while a run is writing; a part that
was deleted, emptied, doubled or changed by hand is a `DamagedFileError` that names it.

Paths may be gs://. jax and Orbax are imported only to save or restore, so that reading tables starts fast.
"""

from jaxconcepts.store.files import DamagedFileError
from jaxconcepts.store.opening import WorkdirInUseError, config, earlier, provenance
from jaxconcepts.store.results import has_result, open_study, results, write_result
from jaxconcepts.store.run import Run, checkpoints, load_checkpoint, open_run
from jaxconcepts.store.tables import (
    METRICS,
    QUANTITIES,
    RUNS,
    STATUSES,
    HiddenSnapshot,
    hidden,
    metrics,
    quantities,
    runs,
)

__all__ = [
    "METRICS",
    "QUANTITIES",
    "RUNS",
    "STATUSES",
    "DamagedFileError",
    "HiddenSnapshot",
    "Run",
    "WorkdirInUseError",
    "checkpoints",
    "config",
    "earlier",
    "has_result",
    "hidden",
    "load_checkpoint",
    "metrics",
    "open_run",
    "open_study",
    "provenance",
    "quantities",
    "results",
    "runs",
    "write_result",
]
