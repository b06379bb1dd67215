"""A study of one's own: CD of trained models without the directions of most variance; docs/adding_a_study.md."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from etils import epath
from matplotlib.figure import Figure

import jaxconcepts as jc
from jaxconcepts import store
from jaxconcepts.figures import page
from jaxconcepts.figures.section import Entry, Group, drawn
from jaxconcepts.sweeps import trained

STUDY, KIND = "directions", "cd"


def study(workdir, removed=(0, 1, 2)):
    """Measures every checkpoint of every run that is not measured yet; returns the table of all."""
    with store.open_study(workdir, STUDY, {"removed": list(removed)}):
        for pack, step, runs in trained.chosen(trained.trained(workdir)):
            params = trained.load_params(workdir, pack, step)
            for place, point in enumerate(pack.points):
                part = f"{point.run}.{step:09d}"
                if point.run in runs and not store.has_result(workdir, STUDY, KIND, part):
                    rows = measure(point, jax.tree.map(lambda a, place=place: a[place], params), removed)
                    rows = rows.with_columns(pl.lit(point.run).alias("run"), pl.lit(step).alias("step"))
                    store.write_result(workdir, STUDY, KIND, part, rows)
    return store.results(workdir, STUDY, KIND)


def measure(point, params, removed):
    """CD of one model's held-out states by layer, without the first so many principal directions."""
    experiment = point.experiment
    cd = np.asarray(scores(experiment, point.numbers, experiment.data(), params, removed))
    layer, which = np.indices(cd.shape).reshape(2, -1)
    return pl.DataFrame({"layer": layer, "removed": np.asarray(removed)[which], "cd": cd.ravel()})


@partial(jax.jit, static_argnames=("experiment", "removed"))
def scores(experiment, numbers, data, params, removed):
    """[layers + 1, removed]; compiled once for all runs that differ in numbers alone."""
    held_out = experiment.held_out(numbers, data)
    hidden, labels = experiment.hidden(params, held_out)
    classes = next(iter(held_out.concepts.values())).classes
    k = held_out.settings.neighbours
    kept = jnp.stack([without(hidden, count) for count in removed], axis=1)
    return jc.concept_decodability(kept, labels, k=k, num_concepts=classes)


def without(hidden, count):
    """hidden [..., N, d], its mean and its `count` principal directions taken away."""
    centred = hidden - hidden.mean(-2, keepdims=True)
    directions = jnp.linalg.svd(centred, full_matrices=False)[2][..., :count, :]
    return centred - jnp.einsum("...nd,...kd,...ke->...ne", centred, directions, directions)


def draw(table):
    """CD by layer at the last step, a line for each number of directions."""
    figure = Figure()
    axes = figure.add_subplot(xlabel="layer", ylabel="CD")
    last = table.filter(pl.col("step") == table["step"].max())
    for (count,), rows in last.group_by("removed", maintain_order=True):
        by_layer = rows.group_by("layer", maintain_order=True).agg(pl.col("cd").mean())
        axes.plot(by_layer["layer"], by_layer["cd"], label=f"{count} removed")
    axes.legend()
    return figure


ENTRY = Entry("directions", "Does CD outlive the largest directions?", draw, "CD by layer, mean over runs.")


def report(workdir):
    """Writes WORKDIR/directions/report.html; returns its path."""
    group = Group("Without the largest directions", [drawn(ENTRY, store.results(workdir, STUDY, KIND))])
    return page.write(epath.Path(workdir) / STUDY, page.Head("Directions"), [group], {})
