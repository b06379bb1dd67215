"""What `import jaxconcepts as jc` gives for notebooks and other programs: the command line's trainings, from Python.

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

if TYPE_CHECKING:
    from jaxconcepts.figures.claims import Claim
    from jaxconcepts.sweeps import Search

PathLike = str | os.PathLike


def config(source: str | Mapping[str, Any], changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config of a training, nested, as `train` and `sweep` take it.

    source: the name of a packaged config, a config file, or the nested fields. changed: fields by dotted name.
    Raises ValueError for a config that cannot be loaded, an unknown field, and a value that a field does not take.
    """
    values = source if isinstance(source, Mapping) else config_files.load(str(source)).values
    kind = config_kind(values)
    values = fields.override(kind, values, dict(changed or {}))
    return nested.as_json(fields.plain(fields.read(kind, values)))


def train(
    config: str | Mapping[str, Any], workdir: PathLike, *, callbacks: Sequence[Callable[[Event], Any]] = (),
    claims: Sequence[Claim] | None = None, report: bool = False, extend: bool = False,
) -> Run:  # fmt: skip
    """Trains the runs of a config, one a seed, or goes on where they were stopped, as the command `train` does.

    callbacks: called at every measured step with an `Event`: `.step`, `.params(run)`, `.metrics`, `.log(name, value)`.
    claims: what the report gives verdicts on (`figures.claims.Claim`); None for the get_claims() of a config that is
    named, and for what the run directory has of before. report: draw the figures and the page too.
    extend: make the runs that the workdir has longer, to the config's larger train.steps (see `runs.lengths`).

    Raises ValueError naming a bad field, CallbackError where a callback raises (its cause is that error), and
    PreemptedError after SIGTERM or SIGINT; of both everything is checkpointed, and the same call goes on.
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
    """Trains every point of a sweep that is not finished, as the command `sweep` does.

    space: overrides by dotted field, such as `product(**{"train.learning_rate": [1e-3, 3e-3], "seed": range(3)})`; or a
    `Search`, whose points follow from what earlier ones gave. tune: measure first how runs go fastest. claims, extend:
    as of `train`. Raises as `train`, and for a point that is invalid and a search of what is not measured.
    """
    from jaxconcepts.sweeps import Search, membership, rounds
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
    """A run directory, to be read, also while it is written. Raises ValueError where there is none."""
    return Run(files.existing_run(workdir))


@dataclass(frozen=True)
class Run:
    """A run directory."""

    workdir: epath.Path

    @property
    def config(self) -> dict[str, Any]:
        """What it was made with."""
        return store.config(self.workdir)

    @property
    def metrics(self) -> pl.DataFrame:
        """All rows measured so far: run, step, metric, layer, token, concept, position, label, value."""
        return store.metrics(self.workdir)

    @property
    def runs(self) -> pl.DataFrame:
        """A row a run: its status and its fields."""
        return store.runs(self.workdir)

    def params(self, run: str | None = None, step: int | None = None) -> PyTree:
        """A run's parameters at a checkpoint, as NumPy arrays.

        run: its name or the beginning of one, such as "seed0"; None for the first. step: None for the last checkpoint.
        Raises ValueError for a run or step that is not there, with those that are.
        """
        from jaxconcepts.sweeps import trained

        return trained.params(self.workdir, *trained.one(self.workdir, run, step))

    def measure(self, metrics: Sequence[str], run: str | None = None, step: int | None = None) -> pl.DataFrame:
        """What evaluators say of a trained run that `measure.metrics` did not name, as rows like those of `metrics`.

        metrics: names of evaluators, or "module:function". run, step: as of `params`. Nothing is written.
        Raises ValueError for an evaluator that there is not, and as `params`.
        """
        from jaxconcepts.sweeps import trained

        return trained.measure(self.workdir, run, step, metrics)

    def figures(self) -> list[str]:
        """The names of the figures that the tables allow."""
        return [section.name for section in self._sections() if section.figure is not None]

    def figure(self, name: str):
        """A figure by name, a matplotlib Figure. Raises ValueError for one that there is not, with those that are."""
        known = []
        for section in self._sections():
            if section.figure is None:
                continue
            if section.name == name:
                return section.figure
            known.append(section.name)
        raise ValueError(f"figure must be one of {', '.join(known)}, got {name!r}")

    def report(self) -> epath.Path:
        """Draws all figures and the page; returns the page's path."""
        from jaxconcepts.figures.report import write_report

        return write_report(self.workdir)

    def _repr_html_(self) -> str:
        """What came out, in words, and the runs: as a notebook shows it."""
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
    """A pretrained language model with its tokenizer. Raises ValueError as `load_pretrained`, and for a tokenizer that
    is missing or cannot be read.

    through: "transformers" runs a model of any architecture by PyTorch: hidden states, logits and answers alone.
    """
    from jaxconcepts.models import pretrained, tokenizer

    folder = pretrained.resolve(folder_or_repo_id)
    model, params = pretrained.load_pretrained(folder, dtype, mesh, through=through)
    return LanguageModel(model, params, tokenizer.load(folder))


@dataclass(frozen=True)
class LanguageModel:
    """A language model with its tokenizer. model, params: as `load_pretrained` gives them."""

    model: Any
    params: PyTree
    tokenizer: Any

    def hidden_states(self, prompts: Sequence[str], at: str = "last", bos: bool | None = None, **options):
        """The residual stream after each block, [layers + 1, prompts, width] at the last token of each prompt.

        at, options: as of `jaxconcepts.hidden_states`. bos: whether prompts begin with the beginning-of-sequence token;
        None where the tokenizer does so itself. Raises ValueError for an empty list or prompt.
        """
        from jaxconcepts.models import language

        return language.hidden_states(self.model, self.params, *self._tokens(prompts, bos), at=at, **options)

    def logits(self, prompts: Sequence[str], at: str = "last", bos: bool | None = None) -> Float[Array, ...]:
        """Next-token logits, [prompts, vocabulary] at the last token of each prompt; see `hidden_states`."""
        from jaxconcepts.models import language

        return language.logits(self.model, self.params, *self._tokens(prompts, bos), at=at)

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 8, bos: bool | None = None) -> list[str]:
        """The most likely continuation of each prompt, as text."""
        from jaxconcepts.models import language

        answers = language.generate(self.model, self.params, *self._tokens(prompts, bos), max_new_tokens=max_new_tokens)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in answers.tolist()]

    def _repr_html_(self) -> str:
        """Which model it is, and how large: as a notebook shows it."""
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
