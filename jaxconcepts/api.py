"""The functions of `import jaxconcepts as jc`: the trainings of the command line, for notebooks and programs.

config = jc.config("quickstart", {"train.steps": 200})
run = jc.train(config, "runs/first", callbacks=[see])            # see(event): event.step, .params(run), .metrics
run = jc.sweep(config, jc.product(seed=range(3)), "runs/sweep")
run = jc.open_run("runs/first")                                  # run.metrics, run.params("seed0"), run.figure(...)
model = jc.load("FOLDER_OR_ID")                                  # model.hidden_states(["a prompt"], at="last")
"""

from __future__ import annotations

import contextlib
import copy
import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import polars as pl
from etils import epath
from jaxtyping import Array, Float, PyTree

from jaxconcepts import fields, nested, store
from jaxconcepts.commands import command_line, config_files
from jaxconcepts.runs import lengths, loop, packs, points
from jaxconcepts.runs.config import config_kind
from jaxconcepts.runs.events import Event
from jaxconcepts.store import files
from jaxconcepts.sweeps import Search, sizing, trained

if TYPE_CHECKING:
    from jaxconcepts.figures.claims import Claim

PathLike = str | os.PathLike


def config(source: str | Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the config of a training as a nested dict, for `train` and `sweep`.

    source: the name or path of a config file, or the nested fields. changed: fields to set, such as {"train.steps": 9}.
    Raises ValueError for a config that cannot be loaded, an unknown field, and a value that a field does not accept.
    """
    values = source if isinstance(source, Mapping) else config_files.load(str(source)).values
    kind = config_kind(values)
    values = fields.override(kind, values, dict(changed or {}))
    return nested.as_json(fields.plain(fields.read(kind, values)))


def train(
    config: str | Mapping[str, Any], workdir: PathLike, *, callbacks: Sequence[Callable[[Event], Any]] = (),
    claims: Sequence[Claim] | None = None, report: bool = False, extend: bool = False,
) -> Run:  # fmt: skip
    """Trains the runs of a config, one for each seed, like the command `train`. Stopped runs are continued.

    config: as `config` returns it, or a name or file. workdir: the run directory. callbacks: functions of an `Event`,
    called at every measured step. An event has `.step`, `.params(run)`, `.metrics` and `.log(name, value)`.
    claims: what the report judges (`figures.claims.Claim`); None for get_claims() of a named config, or for those that
    the run directory has. report: also draw the page. extend: make the existing runs longer (see `runs.lengths`).
    Raises ValueError naming a bad field, CallbackError if a callback raises (the callback's error is its cause), and
    PreemptedError after SIGTERM or SIGINT. After the last two everything is saved, and the same call continues.
    """
    made = _claims(config, claims)
    base, execution, num_seeds = _split(config)
    seeds = range(base["seed"], base["seed"] + num_seeds)
    record = points.stored(base) | {"num_seeds": num_seeds}
    known = lengths.extended(workdir, record, extend)
    pack = [points.make_point(copy.deepcopy(base) | {"seed": seed}, known) for seed in seeds]
    layout = _layout(execution, len(pack))
    allowed = lengths.allowing(extend, workdir, record, known, lambda: [("train", pack[0])])
    with _open(workdir, record, execution, pack, made, allowed) as opened:
        loop.run_pack(
            "train", pack, opened, layout, execution["checkpoint_seconds"],
            watching=loop.Watching(callbacks=callbacks, trackers=execution["trackers"]),
        )  # fmt: skip
    run = open_run(workdir)
    if report:
        run.report()
    return run


def sweep(
    config: str | Mapping[str, Any], space: Iterable[Mapping[str, Any]] | Search, workdir: PathLike, *,
    tune: bool = False, claims: Sequence[Claim] | None = None, extend: bool = False,
) -> Run:  # fmt: skip
    """Trains every unfinished point of a sweep, like the command `sweep`.

    space: one dict of fields for each point, such as `product(**{"train.learning_rate": [1e-3, 3e-3]})`; or a `Search`,
    which chooses points from the results of earlier ones. tune: first measure how runs train fastest.
    config, workdir, claims, extend: see `train`. Raises as `train` does, and ValueError for an invalid point.
    """
    from jaxconcepts.sweeps import membership, rounds
    from jaxconcepts.sweeps.sweep import run_sweep

    base, execution, num_seeds = _split(config)
    record = points.stored(base) | {"num_seeds": num_seeds}
    known = lengths.extended(workdir, record, extend)
    allowed = lengths.allowing(extend, workdir, record, known, partial(membership.started, workdir, known))
    expand = partial(points.expand_with_seeds, base, num_seeds, lengths=known)
    search = space if isinstance(space, Search) else None
    chosen = expand(space.corners() if search else space)
    layout = _layout(execution, search.round * num_seeds if search else len(chosen))
    rounds.check(search, chosen[0], extend) if search else None
    pacing = {name: execution[name] for name in ("at_once", "checkpoint_seconds", "trackers")} | {"tune": tune}
    train_all = partial(rounds.run_search, search, expand) if search else partial(run_sweep, chosen)
    with _open(workdir, record, execution, chosen, _claims(config, claims), allowed) as opened:
        train_all(opened, layout, **pacing)
    return open_run(workdir)


def open_run(workdir: PathLike) -> Run:
    """Opens a run directory for reading, also during its training. Raises ValueError if there is none."""
    return Run(files.existing_run(workdir))


@dataclass(frozen=True)
class Run:
    """A run directory that is open for reading."""

    workdir: epath.Path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the runs, nested."""
        return store.config(self.workdir)

    @property
    def metrics(self) -> pl.DataFrame:
        """All rows measured so far. Columns: run, step, metric, layer, token, concept, position, label, value."""
        return store.metrics(self.workdir)

    @property
    def runs(self) -> pl.DataFrame:
        """One row for each run: its status and its fields."""
        return store.runs(self.workdir)

    def params(self, run: str | None = None, step: int | None = None) -> PyTree:
        """Returns the parameters of a run at a checkpoint, as NumPy arrays.

        run: a name or its beginning, such as "seed0"; None for the first run. step: None for the last checkpoint.
        Raises ValueError for an unknown run or step and lists the known ones.
        """
        return trained.params(self.workdir, *trained.one(self.workdir, run, step))

    def measure(self, metrics: Sequence[str], run: str | None = None, step: int | None = None) -> pl.DataFrame:
        """Measures a trained run with evaluators that its training did not use. Nothing is written.

        metrics: names of evaluators, or "module:function". run, step: see `params`. Returns rows like `Run.metrics`.
        Raises ValueError for an unknown evaluator, and as `params` does.
        """
        return trained.measure(self.workdir, run, step, metrics)

    def figures(self) -> list[str]:
        """The names of the figures that can be drawn from the tables."""
        return [section.name for section in self._sections() if section.figure is not None]

    def figure(self, name: str):
        """Returns a matplotlib Figure by its name. Raises ValueError for an unknown name and lists the known ones."""
        known = []
        for section in self._sections():
            if section.figure is None:
                continue
            if section.name == name:
                return section.figure
            known.append(section.name)
        raise ValueError(f"figure must be one of {', '.join(known)}, got {name!r}")

    def report(self) -> epath.Path:
        """Draws all figures and the page. Returns the path of the page."""
        from jaxconcepts.figures.report import write_report

        return write_report(self.workdir)

    def _repr_html_(self) -> str:
        """The results in words, and the table of runs: what a notebook shows."""
        from jaxconcepts.figures import report

        lines = "".join(f"<li>{html.escape(line)}</li>" for line in report.sentences(self.workdir))
        name, runs = html.escape(str(self.workdir)), self.runs
        shown = runs.select(column for column in runs.columns if column in store.RUNS or runs[column].n_unique() > 1)
        return f"<p><b>{name}</b></p><ul>{lines}</ul>{shown._repr_html_()}"

    def _sections(self):
        from jaxconcepts.figures import report

        for group in report.groups(self.workdir):
            yield from group.sections


def load(
    folder_or_repo_id: PathLike, dtype: str = "float32", mesh: jax.sharding.Mesh | None = None,
    through: str | None = None,
) -> LanguageModel:  # fmt: skip
    """Loads a pretrained language model with its tokenizer.

    folder_or_repo_id: a checkpoint folder, a GGUF file, a Hugging Face repository id, or "smollm2-135m". dtype:
    "float32" or "bfloat16". mesh: devices that share the parameters, see `load_pretrained`. through: "transformers"
    runs a model of any architecture with PyTorch; it gives only hidden states, logits and answers.
    Raises ValueError as `load_pretrained` does, and for a tokenizer that is missing or cannot be read.
    """
    from jaxconcepts.models import pretrained, tokenizer

    folder = pretrained.resolve(folder_or_repo_id)
    model, params = pretrained.load_pretrained(folder, dtype, mesh, through=through)
    return LanguageModel(model, params, tokenizer.load(folder))


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer. model, params: the two results of `load_pretrained`."""

    model: Any
    params: PyTree
    tokenizer: Any

    def hidden_states(self, prompts: Sequence[str], at: str = "last", bos: bool | None = None, **options):
        """The residual stream after each block, [layers + 1, prompts, width] at the last token of each prompt.

        at, options: see `jaxconcepts.hidden_states`. bos: begin each prompt with the beginning-of-sequence token; None
        does what the tokenizer does by itself. Raises ValueError for an empty list or prompt.
        """
        from jaxconcepts.models import language

        return language.hidden_states(self.model, self.params, *self._tokens(prompts, bos), at=at, **options)

    def logits(self, prompts: Sequence[str], at: str = "last", bos: bool | None = None) -> Float[Array, ...]:
        """Next-token logits, [prompts, vocabulary] at the last token of each prompt; see `hidden_states`."""
        from jaxconcepts.models import language

        return language.logits(self.model, self.params, *self._tokens(prompts, bos), at=at)

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 8, bos: bool | None = None) -> list[str]:
        """The greedy continuation of each prompt, as text. max_new_tokens: its largest number of tokens."""
        from jaxconcepts.models import language

        answers = language.generate(self.model, self.params, *self._tokens(prompts, bos), max_new_tokens=max_new_tokens)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in answers.tolist()]

    def _repr_html_(self) -> str:
        """The kind of the model and its size: what a notebook shows."""
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        rows = {"model": type(self.model).__name__, "blocks": self.model.layers, "parameters": f"{size:,}"}
        cells = "".join(f"<tr><td>{name}</td><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items())
        return f"<table>{cells}</table>"

    def _tokens(self, prompts, bos):
        from jaxconcepts.models import language

        if isinstance(prompts, str) or not list(prompts):
            raise ValueError(f"prompts must be a list of at least one text, got {prompts!r}")
        if bos is None:
            start = self.tokenizer("a")["input_ids"][:1]
            bos = self.tokenizer.bos_token_id is not None and start == [self.tokenizer.bos_token_id]
        ids = language.tokenize(self.tokenizer, prompts, bos)
        width = max(map(len, ids))
        return [row + [0] * (width - len(row)) for row in ids], [len(row) for row in ids]


def _split(given):
    """The run's fields, how runs are executed, and how many seeds."""
    values = config(given)
    values = nested.as_json(fields.identity(config_kind(values), values))
    return values, values.pop("run"), values.pop("num_seeds")


def _layout(execution, runs):
    with contextlib.suppress(RuntimeError):  # Where jax has been used already, its devices stay as they are.
        command_line.make_cpu_devices(execution["cpu_devices"])
    layout = packs.Layout(execution["how"], execution["data"], execution["unroll"])
    packs.make_mesh(runs, layout.data)
    return layout


@contextlib.contextmanager
def _open(workdir, record, execution, chosen, made, extend):
    sizing.try_own_evaluators(chosen)
    keep_steps = {step for point in chosen for step in point.experiment.measuring.checkpoint_steps}
    device = command_line.device() | execution
    with store.open_run(workdir, record, device=device, keep_steps=keep_steps, extend=extend) as opened:
        if made:
            from jaxconcepts.figures import claims

            claims.write(opened.workdir, made)
        yield opened


def _claims(config, given):
    """The claims that are given, or those of the config file that is named."""
    if given is None:
        return [] if isinstance(config, Mapping) else config_files.load(str(config)).claims()
    from jaxconcepts.figures.claims import Claim

    if wrong := [claim for claim in given if not isinstance(claim, Claim)]:
        raise ValueError(f"claims must be figures.claims.Claim, got {wrong[0]!r}")
    return list(given)
