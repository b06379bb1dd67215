"""The names that `import jaxconcepts as jc` gives."""

import subprocess
import sys
from pathlib import Path

import pytest

import jaxconcepts as jc


def test_every_public_name_is_there():
    assert {"concept_decodability", "pairwise_decodability", "load_pretrained"} <= set(jc.__all__) <= set(dir(jc))
    for name in jc.__all__:
        assert callable(getattr(jc, name)), name


def test_importing_the_package_imports_no_jax():
    code = "import sys, jaxconcepts; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'jaxconcepts' has no attribute 'concept_decodabilty'"):
        _ = jc.concept_decodabilty
