"""Deprecations: those about our use of a peer are errors in the suite, those of a peer about its own future are not."""

import warnings

import pytest

KINDS = [DeprecationWarning, PendingDeprecationWarning, FutureWarning]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", [__name__, "jaxconcepts.store.tables", "conftest"])
def test_a_deprecation_that_is_about_a_file_of_ours_is_an_error(kind, module):
    with pytest.raises(kind):
        warnings.warn_explicit("soon", kind, "file.py", 1, module)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", ["torch.nn.modules.module", "transformers.cache_utils", "jax._src.core"])
def test_a_deprecation_that_is_about_a_file_of_a_peer_is_shown_alone(kind, module):
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn_explicit("soon", kind, "file.py", 1, module)
    assert [warning.category for warning in seen] == [kind]


def test_other_warnings_are_errors_wherever_they_come_from():
    with pytest.raises(UserWarning):
        warnings.warn_explicit("odd", UserWarning, "file.py", 1, "numpy.linalg")
