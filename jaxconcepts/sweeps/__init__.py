"""Many runs as one program: which points a sweep has, packs of runs, and packs laid out over a mesh of devices.

The names that a config's `get_sweep` and `get_search` use are here, without importing jax.
"""

from jaxconcepts.sweeps.search import Search
from jaxconcepts.sweeps.space import Space, choice, integers, log_uniform, product, sample, uniform, zip_

__all__ = ["Search", "Space", "choice", "integers", "log_uniform", "product", "sample", "uniform", "zip_"]
