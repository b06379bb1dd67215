"""The documentation holds together: links, images, the site's contents, code of tested files, names that exist."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import jaxconcepts as jc
from jaxconcepts import __main__, experiments, fields
from jaxconcepts.commands import config_files
from jaxconcepts.models.pretrained import FAMILIES
from jaxconcepts.runs.config import config_kind

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
    assert "concept_decodability" in reference and "Returns the config of a training" in reference


SOURCES = ("jaxconcepts", "configs", "tests", "launch")
# What our code does not name: of other projects, of processors, parts of names, a commit.
OTHERS = {
    "pandas", "reduce_precision", "ssyrk", "cpp", "ppo", "e67a976", "toml", "False", "A0B", "multiM", "permuteM",
    "deps", "cd_shown_answers", "foresee_low", "foresee_high", "trained_probe_balanced", "trained_probe_mcc",
}  # fmt: skip


def spans(path):
    """What stands between backticks, outside blocks of code."""
    return re.findall(r"`([^`\n]+)`", prose(path))


@pytest.fixture(scope="module")
def code_names():
    """Every name that the sources use: of variables, attributes, arguments and modules, and words of short texts."""
    names = set(OTHERS)
    for path in (path for folder in SOURCES for path in (ROOT / folder).rglob("*.*")):
        names |= set(re.findall(r"\w+", str(path.relative_to(ROOT))))
        if path.suffix in (".sh", ".yaml"):
            names |= set(re.findall(r"\w+", path.read_text()))
        for node in ast.walk(ast.parse(path.read_text())) if path.suffix == ".py" else ():
            for field in ("id", "attr", "name", "arg", "value"):
                text = getattr(node, field, None)
                names |= set(re.findall(r"\w+", text)) if isinstance(text, str) and " " not in text else set()
    return names | set(re.findall(r"\w+", (ROOT / "setup.py").read_text()))


@page
def test_every_name_in_backticks_is_one_of_the_code(path, code_names):
    """A function, field, flag, metric or module that was renamed or removed is not documented any more."""
    for span in spans(path):
        words = re.findall(r"[A-Za-z_]\w{2,}", re.sub(r"\"[^\"]*\"|\d+x[\dx]+", "", span))
        assert not set(words) - code_names, f"{path.name}: `{span}`"
        for name in re.findall(r"\bjc\.(\w+)", span):
            assert name in jc.__all__, f"{path.name}: `{span}`"


@page
def test_every_file_in_backticks_exists(path):
    for span in spans(path):
        for name in re.findall(r"(?<![\w/.*<])[\w/.-]+/?[\w.-]+\.(?:py|sh|md|csv|yml)\b", span):
            folders = (ROOT, ROOT / "jaxconcepts", ROOT / "configs", ROOT / "docs", ROOT / "jaxconcepts" / "models")
            written_by_reader = name.startswith("my_") or name in ("ppo.py", "configs/X.py")
            assert written_by_reader or any((folder / name).exists() for folder in folders), f"{path.name}: {name}"


@pytest.fixture(scope="module")
def config_fields():
    """The dotted fields of every packaged config, at every size."""
    values = [config_files.load(name).values for name in config_files.names()]
    for name in config_files.names():
        if name.startswith(("grammar", "reasoning", "biographies")):
            values.append(config_files.load(f"{name}:smoke").values)
    return {name for nested in values for name in dotted(nested)}


def dotted(values, prefix=""):
    for name, value in values.items():
        yield prefix + name
        yield from dotted(value, f"{prefix}{name}.") if isinstance(value, dict) else ()


@page
def test_every_field_in_backticks_is_one_of_a_config(path, config_fields):
    sections = "|".join(sorted({name.partition(".")[0] for name in config_fields if "." in name}))
    for span in spans(path):
        for name in re.findall(rf"^(?:--)?(?:config\.)?((?:{sections})\.[a-z_]\w*)", span):
            assert name in config_fields or span.endswith(".py"), f"{path.name}: `{span}`"


def flags(command):
    module = importlib.import_module(f"jaxconcepts.commands.{command}")
    return [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__name__.endswith("Flags")]


def test_help_says_what_every_field_and_flag_means():
    kinds = [kind for command in __main__.COMMANDS for kind in flags(command)]
    for folder in ("icl.config:IclConfig", "icl.from_scratch:FromScratchFields", "causal.config:CausalFields"):
        module, _, name = folder.partition(":")
        kinds.append(getattr(importlib.import_module(f"jaxconcepts.studies.{module}"), name))
    for name in experiments.BUILT_IN:
        for family in FAMILIES:
            kinds.append(config_kind({"experiment": name, "model": {"family": family}}))
    for kind in kinds:
        for name, of in fields.declared(kind).items():
            # A section of no fields is shown, too.
            assert of.default == {} or re.match(r"(?!of )\S", of.doc), f"{kind.__name__}: {name}: {of.doc!r}"
