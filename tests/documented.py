"""Reads the commands and the Python snippets out of README.md, docs/*.md and every config's head."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAM = re.compile(r"(?:[A-Z_]+=\S* +)*(?:python -m jaxconcepts|jaxconcepts|bash|pip install|python)(?= |$)")
SUBCOMMAND = re.compile(r"[a-z_]+ --")
# Lines of a shell block that run nothing of ours.
SETUP = ("git clone", "cd ", "source ", "python3 -m venv", "export ")


class Command(NamedTuple):
    """A documented command. where: its file and line. words: as a shell splits it, without what is optional."""

    where: str
    words: tuple[str, ...]


class Snippet(NamedTuple):
    """A documented piece of Python."""

    where: str
    code: str


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[Command]:
    """Every command, each once."""
    made = [command for page in pages() for command in _of_page(page)]
    made += [command for path in sorted((ROOT / "configs").glob("*.py")) for command in _of_config(path)]
    return list({command.words: command for command in reversed(made)}.values())[::-1]


def snippets() -> list[Snippet]:
    """Every Python block of the pages."""
    return [Snippet(where, code) for page in pages() for where, kind, code in _blocks(page) if kind == "python"]


def _blocks(page: Path):
    """(file:line, language, text) of each fenced block."""
    text = page.read_text()
    for match in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
        line = text[: match.start()].count("\n") + 1
        yield f"{page.relative_to(ROOT)}:{line}", match[2], match[3]


def _of_page(page: Path):
    for where, kind, code in _blocks(page):
        shell = kind in ("bash", "sh", "shell", "console")
        for line in code.replace("\\\n", " ").splitlines() if shell or not kind else ():
            line = line.strip().removeprefix("$ ")
            if line and not line.startswith(("#", *SETUP)) and (shell or PROGRAM.match(line)):
                yield _command(where, line)
    prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for match in re.finditer(r"`([^`]+)`", prose):
        text = " ".join(match[1].split())
        if PROGRAM.match(text) and text not in ("bash", "python", "pip install", "jaxconcepts"):
            yield _command(str(page.relative_to(ROOT)), text)
        elif SUBCOMMAND.match(text):
            yield _command(str(page.relative_to(ROOT)), f"jaxconcepts {text}")


def _of_config(path: Path):
    head = path.read_text().split('"""')[1]
    if "Command:" not in head:
        raise ValueError(f"{path.name}: its head states no Command:")
    last = ""
    # Up to the next heading, such as "Time:".
    for line in re.split(r"\n[A-Z][a-z]+:", head.split("Command:")[1])[0].splitlines():
        line = re.sub(r"\((?!then:)[^)]*\)", "", line).strip().removeprefix("(then:").removesuffix(")").strip()
        if line.startswith("..."):
            # The command before, with another model and more flags.
            line = f"{last.split(' --model=')[0]} {line.removeprefix('...').strip()}"
        if line := line.split(";")[0].strip():
            last = line
            yield _command(f"configs/{path.name}", line)


def _command(where: str, line: str) -> Command:
    line = re.sub(r"\[(?!\w+\])[^\]]*\]", "", line.split(" # ")[0])
    words = [word for word in shlex.split(line) if word != "..."]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    if words[:3] == ["python", "-m", "jaxconcepts"]:
        words = ["jaxconcepts", *words[3:]]
    return Command(where, tuple(words))
