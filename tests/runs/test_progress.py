"""What progress lines say of the training loss."""

import numpy as np
import pytest

from jaxconcepts.runs import progress


@pytest.mark.parametrize(
    ("step", "losses", "text"),
    [
        (0, [np.nan, np.nan], ""),  # There is none before the first step, which is no divergence.
        (5, [1.0, 2.0], "  train loss 1.5"),
        (5, [1.0, np.nan, np.inf], "  train loss 1"),
        (5, [np.nan, np.inf], "  train loss nan"),
    ],
)
def test_the_training_loss_is_that_of_runs_that_have_not_diverged(step, losses, text):
    assert progress.train_loss(step, np.array(losses)) == text
