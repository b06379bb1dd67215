"""The documentation holds together: links, images, the site's contents, and code that is that of tested files."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAV = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
EXAMPLES = {
    "adding_a_task": ("example_experiment.py", "example_config.py", "example_bank.py"),
    "adding_a_metric": ("example_metric.py",),
    "adding_a_model": ("example_model.py",),
    "adding_a_study": ("example_study.py",),
}
"""The tested files that a page's `py` blocks are taken from."""
page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(path):
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """Headings as the site and code hosts name them."""
    titles = re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@page
def test_every_link_and_image_is_there(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.is_file(), f"{path.name} links to {target}"
        assert path.parent == ROOT or linked.is_relative_to(DOCS), f"{path.name}: {target} is not on the site"
        assert not anchor or anchor in anchors(linked), f"{path.name}: {linked.name} has no heading {anchor}"


def test_every_page_is_in_the_contents_once():
    named = re.findall(r"[\w/]+\.md", NAV)
    there = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(named) == sorted(there)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_no_picture_is_left_over():
    shown = {(path.parent / t).resolve() for path in PAGES for t in re.findall(r"!\[[^]]*\]\(([^)]+)\)", prose(path))}
    assert {path.resolve() for path in DOCS.rglob("*.png")} <= shown


@pytest.mark.parametrize("name", sorted({path.stem for path in DOCS.glob("adding_*.md")} | set(EXAMPLES)))
def test_examples_are_those_of_tested_files(name):
    """Line by line; a line of dots stands for what is left out."""
    code = "\n".join((ROOT / "tests" / file).read_text() for file in EXAMPLES[name]).splitlines()
    blocks = re.findall(r"^```py\n(.*?)^```", (DOCS / f"{name}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for line in "".join(blocks).replace("my_task.py", "tests/example_experiment.py").splitlines():
        assert line.strip() in ("", "...") or line in code, f"{name}.md: {line}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocstrings") is None, reason="needs mkdocs: pip install '.[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "site" / "reference" / "index.html").read_text()
    assert "concept_decodability" in reference and "The config of a training" in reference
