"""Which figures a report has, in its order, and what is said under each: what is seen and how it was computed."""

from __future__ import annotations

from functools import partial

from jaxconcepts.figures.patching import panels as patching
from jaxconcepts.figures.regression import curves as synthetic
from jaxconcepts.figures.regression import outcomes
from jaxconcepts.figures.section import Entry
from jaxconcepts.figures.sweeps import outcomes as sweep_outcomes
from jaxconcepts.figures.sweeps import panels as sweep

SETS = "All measurements are on one held-out set of sequences, the same at every step."
DIVIDED = (
    "Squared errors are divided by r, the rank of the bases, so predicting zero gives about 1. Values below a "
    "ten-thousandth of the largest are not shown."
)
REFERENCES = (
    "Broken lines are the same error of closed-form predictors on the same sequences, all concepts together: zero; "
    "ridge regression on all dimensions; the Bayes-optimal mixture, which infers the concept from the examples; and "
    "the oracle, which is given the concept."
)
# {k}: how many neighbours vote, see `sections`.
CD = (
    "CD is the share of sequences whose concept has the majority among their {k} nearest neighbours (Euclidean, leave "
    "one out, all concepts pooled; tied votes are shared)."
)
INTERVAL = (
    "The band is a 95 % interval that takes shared neighbours into account (if the run measured `cd_interval`). It "
    "does not account for the choice of the best layer."
)

TRAINED = (
    "For regression it is the squared error divided by r, the rank of the bases, so predicting zero gives about 1. For "
    "language it is the cross-entropy in nats a token."
)

ENTRIES = (
    Entry(
        "loss_last",
        "Loss at the last position",
        partial(synthetic.loss, last=True),
        f"Held-out loss of each concept at the last pair, which has seen the most examples, over training. "
        f"{REFERENCES} {DIVIDED} {SETS}",
        over_steps=True,
        outcome=partial(outcomes.loss, last=True),
    ),
    Entry(
        "loss_mean",
        "Loss, mean over positions",
        partial(synthetic.loss, last=False),
        f"Held-out loss of each concept, the mean over all positions, the one without examples included. "
        f"{REFERENCES} {DIVIDED}",
        over_steps=True,
        lead=False,
        outcome=partial(outcomes.loss, last=False),
    ),
    Entry(
        "loss_by_position",
        "Loss by position",
        synthetic.loss_by_position,
        f"Held-out loss after i examples, all concepts together, at steps spread over training (lighter is earlier). "
        f"How fast the error falls with examples tells which predictor the model resembles. {REFERENCES} {DIVIDED}",
        lead=False,
        outcome=outcomes.loss_by_position,
    ),
    Entry(
        "distance",
        "Which algorithm does the model run?",
        synthetic.distance,
        "Mean squared difference between the model's predictions and each reference's on the same held-out sequences, "
        "mean over positions and concepts, divided by r. The lowest line is the predictor that the model is nearest to "
        "at that step; 0 would be the same predictions everywhere.",
        over_steps=True,
        outcome=outcomes.distance,
    ),
    Entry(
        "cd_map_x",
        "CD by layer and step, at the x token",
        partial(synthetic.cd_map, token="x"),
        f"{CD} Hidden states are the residual stream after each block (layer 0: the embeddings) at the last x token, "
        "the one just before the answer. Colours run from chance to 1; one cell is one measurement.",
        over_steps=True,
        outcome=outcomes.cd_map,
    ),
    Entry(
        "cd_map_y",
        "CD by layer and step, at the y token",
        partial(synthetic.cd_map, token="y"),
        f"The same at the last y token, where the answer itself has been read. {CD}",
        over_steps=True,
        lead=False,
        outcome=partial(outcomes.cd_map, token="y"),
    ),
    Entry(
        "cd_curves",
        "CD of every layer over training",
        partial(synthetic.cd_curves, token="x"),
        f"CD at the last x token for each layer, and the best layer at each step. {INTERVAL} The dotted line is "
        f"chance, one over the number of concepts. {CD}",
        over_steps=True,
        outcome=outcomes.cd,
    ),
    Entry(
        "cd_concepts",
        "CD of each concept",
        synthetic.cd_concepts,
        "The share of each concept's own sequences that are decoded correctly, at the last x token, in the layer "
        "that is best at the run's last measurement (named above each panel). The dotted line is chance.",
        over_steps=True,
        lead=False,
        outcome=outcomes.cd_concepts,
    ),
    Entry(
        "cd_against_loss",
        "CD against loss",
        synthetic.cd_against_loss,
        "Each dot is a measurement, coloured by step (step 0 as the first after it) and joined in their order: "
        "best-layer CD at the last x token against held-out loss, mean over positions. Vertical lines: ridge's and the "
        f"Bayes mixture's loss. {DIVIDED}",
        over_steps=True,
        lead=False,
        outcome=outcomes.cd_against_loss,
    ),
    Entry(
        "train_loss",
        "Training loss",
        synthetic.train_loss,
        f"Mean loss of the training batches since the last measurement, mean over positions. {TRAINED}",
        over_steps=True,
        lead=False,
        outcome=outcomes.train_loss,
    ),
)

HALF_WAY = (
    "The half-way mark is the step at which a curve reaches the middle between its first and its best measurement, "
    "interpolated linearly. A concept counts if its last-position loss falls by at least a tenth (for CD: if CD "
    "rises by 0.1, at the layer that is best at the end)."
)
SWEEP_ENTRIES = (
    Entry(
        "sweep_fields",
        "Loss and CD against each swept field",
        sweep.by_field,
        "Each dot is a run at its last measurement: held-out loss at the last position, all concepts together, and "
        "the best layer's CD at the last x token. The line is the median of the runs with the same value (random "
        "values are put into eight classes), and the band is their middle half. The fields with the largest effect "
        f"come first. Diverged runs are left out. {DIVIDED}",
        outcome=sweep_outcomes.by_field,
    ),
    Entry(
        "sweep_pairs",
        "Loss and CD over two fields at a time",
        sweep.heat_maps,
        "Medians over all runs with both values, for the three fields with the largest effect. Brighter is better in "
        "both rows. White: no run.",
        lead=False,
        outcome=sweep_outcomes.heat_maps,
    ),
    Entry(
        "sweep_parallel",
        "All fields at once",
        sweep.parallel,
        "A line is a run, from its fields to its last-position loss / r and its best-layer CD. The colour is the CD. "
        "If there are many runs, an even sample is shown.",
        lead=False,
    ),
    Entry(
        "sweep_emergence",
        "When CD rises against when loss falls",
        sweep.loss_against_cd,
        f"A dot is a concept of a run. Above the dotted line the loss falls before CD rises. {HALF_WAY}",
        outcome=sweep_outcomes.loss_against_cd,
    ),
    Entry(
        "sweep_order",
        "Order of emergence by seed",
        sweep.order_by_seed,
        f"A row is a seed, and a panel is a setting. Shown are the settings in which most losses fell. {HALF_WAY}",
        lead=False,
        outcome=sweep_outcomes.order_by_seed,
    ),
)
"""Drawn once for all runs, where they differ in more than their seed."""

PATCH_HOW = (
    "The mean hidden state of a concept (the target) replaces the hidden states of sequences of another concept (the "
    "source), or the difference of the two concepts' means is added (x4: four times). Means are over other sequences, "
    "for each position."
)
PATCH_CONTROLS = (
    "Controls: a random direction as long as the difference of the means, the source's own mean, and the mean of a "
    "third concept, compared with the same oracles. Shown are means over all pairs of concepts, at the query."
)


PATCH_ENTRIES = (
    *(
        Entry(
            f"patch_{metric}_{mode.replace(' ', '_')}_{positions}",
            f"Which algorithm does a patched model run? ({mode}, {patching.POSITION_LABELS[positions]}, {what})",
            partial(patching.followed, mode=mode, positions=positions, metric=metric),
            f"{PATCH_HOW} {PATCH_CONTROLS} {how}",
            kind="summary",
            lead=metric == "weight" and (mode, positions) == ("add", "all"),
            outcome=partial(outcomes.followed, mode=mode, positions=positions, metric=metric),
        )
        for mode, positions in (("add", "query"), ("add", "x"), ("add", "all"), ("add x4", "all"), ("replace", "all"))
        for metric, what, how in (
            (
                "distance",
                "distance",
                "Mean squared difference between the predictions and those of two oracles, of the source's and of the "
                "target's basis, divided by r. A patch that switches the algorithm raises the first and lowers the "
                "second.",
            ),
            (
                "weight",
                "weights",
                "Least-squares coefficients of the predictions on the oracles of all concepts: (1, 0) on source and "
                "target for an ideal model, (0, 1) for one whose algorithm was switched, (0, 0) for a broken one.",
            ),
        )
    ),
    Entry(
        "patch_training",
        "Patches over training",
        partial(patching.followed_over_training, mode="add"),
        f"{PATCH_HOW} The coefficients of the predictions on the oracles of source and target, at every checkpoint. "
        "The patch is the one with the largest coefficient for the target at the last checkpoint.",
        kind="summary",
    ),
    *(
        Entry(
            f"patch_grid_{mode.replace(' ', '_')}",
            f"Loss after a patch ({mode})",
            partial(patching.grids_by_layer, mode=mode),
            f"{PATCH_HOW} Change of the loss at the query, divided by r, at the last checkpoint; one colour scale, "
            "centred at zero.",
            kind="grid",
            each=True,
            lead=False,
            outcome=partial(outcomes.grids, mode=mode),
        )
        for mode in ("add", "add x4", "replace")
    ),
    Entry(
        "patch_grid_training",
        "Loss after a patch, over training",
        partial(patching.grids_over_training, mode="add"),
        f"{PATCH_HOW} The same at every checkpoint, at the layer where the loss changes most at the last checkpoint.",
        kind="grid",
        each=True,
        lead=False,
    ),
    *(
        Entry(
            f"heads_{ablation}",
            f"Heads, one at a time ({ablation} ablation)",
            partial(patching.head_map, ablation=ablation),
            f"Change of the loss, mean over positions, divided by r, when one head's output {how}, for all concepts "
            "and for each.",
            kind="heads",
            each=True,
            lead=ablation == "mean",
            outcome=partial(outcomes.heads, ablation=ablation),
        )
        for ablation, how in (
            ("mean", "is replaced by its mean over other sequences, position by position"),
            ("zero", "is set to zero"),
        )
    ),
)

PROJECTION_CAPTION = (
    "Hidden states of the held-out sequences at the last x token, one dot a sequence, coloured by concept; rows are "
    "training steps, columns layers. Above each panel is its CD, computed in the full width: a projection alone can "
    "show clusters that are not there and hide ones that are. {how}"
)
PROJECTION_HOW = {
    "pca": "Principal components of each panel's own points.",
    "umap": "UMAP of each panel's own points: 15 neighbours, min_dist 0.1, one fixed seed; distances between clusters "
    "mean little.",
}
