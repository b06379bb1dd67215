"""Tokenizers: one loader, no code of the folder, and what is missing said in one line."""

import builtins
import json
import re
import sys
from pathlib import Path

import pytest

from jaxconcepts import extras
from jaxconcepts.models import pretrained, tokenizer

ROOT = Path(__file__).parents[2]


def test_no_python_of_the_folder_is_run(tmp_path, monkeypatch):
    """With "y" on standard input, which would let transformers ask and be told yes."""
    pytest.importorskip("transformers", reason="the loader is transformers'")
    marker = tmp_path / "was_run"
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Words: pass\n")
    names = {"auto_map": {"AutoTokenizer": ["mine.Words", None], "AutoConfig": "mine.Words"}, "model_type": "mine"}
    for file in ("config.json", "tokenizer_config.json"):
        (tmp_path / file).write_text(json.dumps(names))
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    with pytest.raises(ValueError, match=f"the tokenizer of {tmp_path} cannot be read"):
        tokenizer.load(tmp_path)
    assert not marker.exists()


def test_every_other_module_takes_its_tokenizer_from_here():
    """Classes of transformers that may run a folder's Python are used in two files, which forbid it."""
    users = {}
    for path in (ROOT / "jaxconcepts").rglob("*.py"):
        if names := set(re.findall(r"Auto(?:Tokenizer|Model\w*|Config)\b", path.read_text())):
            users[path.name] = names
            assert path.read_text().count("from_pretrained(") <= len(
                re.findall(r"trust_remote_code(?:=|\": )False", path.read_text())
            )
    through = {"AutoModelForCausalLM", "AutoConfig"}
    assert users == {"tokenizer.py": {"AutoTokenizer"}, "through_transformers.py": through}


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} has no tokenizer: none of tokenizer.json"):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("library", "use"),
    [
        ("transformers", lambda folder: tokenizer.load(folder)),
        ("huggingface_hub", lambda folder: pretrained.resolve("owner/name")),
    ],
)
def test_a_missing_extra_is_one_line_that_says_how_to_install_it(tmp_path, monkeypatch, library, use):
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError) as caught:
        use(tmp_path)
    assert f'needs {library}: pip install "jaxconcepts[hf]"' in str(caught.value) and "\n" not in str(caught.value)


def test_an_extra_that_lacks_a_library_of_its_own_says_which(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("import absent_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_library"):
        extras.load("half", "hf", "a test")


def test_all_files_of_a_tokenizer_are_fetched(monkeypatch, tmp_path):
    """A repository with vocab.json and merges.txt alone: both come, and no weights of another kind."""
    hub = pytest.importorskip("huggingface_hub", reason="the extra")
    from huggingface_hub.utils import filter_repo_objects

    there = [
        "config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "vocab.txt",
        "pytorch_model.bin", "tf_model.h5", "chat_template.jinja", "README.md",
    ]  # fmt: skip
    asked = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **options: asked.update(options) or str(tmp_path))
    pretrained.resolve("owner/name")
    fetched = set(filter_repo_objects(there, allow_patterns=asked["allow_patterns"]))
    assert set(there) - fetched == {"pytorch_model.bin", "tf_model.h5", "README.md"}
