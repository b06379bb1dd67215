"""What cannot be measured of so many concepts and held-out points of in-context regression."""

from __future__ import annotations

from jaxconcepts.experiments import evaluators
from jaxconcepts.fields import FieldError
from jaxconcepts.metrics import probes
from jaxconcepts.training.measured import MeasureConfig


def check(settings: MeasureConfig, concepts: int) -> None:
    """Raises FieldError where neighbours are so many, or concepts and points so few, that a metric says nothing."""
    metrics = set(settings.metrics)
    if concepts == 1 and (alone := sorted(metrics & {"cd_interval", "pairwise_cd", "probe", "silhouette"})):
        raise ValueError(f"measure.metrics: {alone[0]} needs two concepts, got task.num_concepts = 1")
    points = settings.cd_per_concept * concepts
    if "probe" in metrics and points < probes.FOLDS:
        raise FieldError(
            "measure.cd_per_concept", f"must give probe {probes.FOLDS} points over all concepts, got {points}"
        )
    # A point has cd_per_concept - 1 others of its concept: of more votes than these for every concept it cannot win.
    most = points - concepts
    if concepts > 1 and metrics & set(evaluators.OF_NEIGHBOURS) and settings.neighbours > most:
        raise FieldError(
            "measure.neighbours",
            f"must be at most {most}, since a concept has {settings.cd_per_concept} points (measure.cd_per_concept) "
            f"and none could have most votes for its own; got {settings.neighbours}",
        )
