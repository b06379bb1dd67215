"""Config files: Python that is run: `get_config()`; for sweeps `get_sweep()`, `get_search()`; and `get_claims()`.

A config is named by its file, or by name alone where it comes with the package ("quickstart"); `FILE:TEXT` gives TEXT
to `get_config`, and to a `get_sweep` and a `get_search` that takes an argument. Whatever goes wrong while the file runs
is one ValueError that says where in it.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxconcepts import fields
from jaxconcepts.field_values import shown

if TYPE_CHECKING:
    from jaxconcepts.sweeps import Search

PACKAGE = Path(__file__).parents[1]
# In a wheel the configs lie in the package, in a checkout beside it.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")


class ConfigFile(NamedTuple):
    """A config file that was run. values: what get_config() returned, as nested dicts. name: as it was given; argument:
    the text after its colon."""

    name: str
    values: dict[str, Any]
    module: ModuleType
    argument: str | None = None

    def sweep(self) -> Iterable[Mapping[str, Any]] | None:
        """What get_sweep() returns, None where there is none. Raises ValueError unless it is an iterable of dicts."""
        if not hasattr(self.module, "get_sweep"):
            return None
        space = self._call("get_sweep")
        if isinstance(space, Mapping | str | bytes) or not isinstance(space, Iterable):
            raise ValueError(
                f"get_sweep() of {self.name} must return dicts of overrides by dotted field, such as "
                f"product(seed=range(3)), got {shown(space)}"
            )
        overrides = _run(self.name, Path(self.module.__file__), lambda: list(space))
        if wrong := [override for override in overrides if not isinstance(override, Mapping)]:
            raise ValueError(
                f"get_sweep() of {self.name} must return dicts of overrides by dotted field, got {shown(wrong[0])}"
            )
        return overrides

    def search(self) -> Search | None:
        """What get_search() returns, None where there is none. Raises ValueError unless it is a Search."""
        from jaxconcepts.sweeps import Search  # Only here: it takes long to import.

        if not hasattr(self.module, "get_search"):
            return None
        if not isinstance(search := self._call("get_search"), Search):
            raise ValueError(f"get_search() of {self.name} must return a sweeps.Search, got {shown(search)}")
        return search

    def _call(self, function: str) -> Any:
        """What a function of the file returns, given the text after the name's colon if it takes one."""
        called = getattr(self.module, function)
        given = [] if self.argument is None or not inspect.signature(called).parameters else [self.argument]
        return _run(self.name, Path(self.module.__file__), called, *given)

    def claims(self) -> list[Any]:
        """What get_claims() returned; none where there is none. Raises ValueError unless they are claims."""
        from jaxconcepts.figures.claims import Claim  # Only here: it takes long to import.

        get_claims = getattr(self.module, "get_claims", None)
        made = [] if get_claims is None else _run(self.name, Path(self.module.__file__), lambda: list(get_claims()))
        if wrong := [claim for claim in made if not isinstance(claim, Claim)]:
            raise ValueError(f"get_claims() of {self.name} must return figures.claims.Claim, got {shown(wrong[0])}")
        return made


def names() -> list[str]:
    """The configs that come with the package."""
    return sorted({path.stem for folder in FOLDERS for path in folder.glob("*.py") if not path.stem.startswith("_")})


def load(name: str) -> ConfigFile:
    """Runs a config file and its get_config(). Raises ValueError, naming the file and the line, where that fails."""
    path, argument = _find(name)
    get_config = getattr(module := _run(name, path, _module, path), "get_config", None)
    if not callable(get_config):
        raise ValueError(f"config {name} must have a function get_config(), and has none")
    made = _run(name, path, get_config, *([] if argument is None else [argument]))
    return ConfigFile(name, _run(name, path, _plain, made), module, argument)


def _find(name: str) -> tuple[Path, str | None]:
    """The file, and the text after its colon."""
    text, colon, argument = name.partition(":")
    argument = argument if colon else None
    if text.endswith(".py") or "/" in text:
        if not (path := Path(text).expanduser()).is_file():
            near = "; with the package comes " + Path(text).stem if Path(text).stem in names() else ""
            raise ValueError(f"--config must be a config file or one of {', '.join(names())}, got {shown(name)}{near}")
        return path.resolve(), argument
    files = [path for folder in FOLDERS if (path := folder / f"{text}.py").is_file()]
    if not files:
        near = difflib.get_close_matches(text, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"--config must be a config file or one of {', '.join(names())}, got {shown(name)}{hint}")
    return files[0], argument


def _module(path: Path) -> ModuleType:
    # Registered, since dataclasses and pickling look their module up.
    name = f"_config_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _run(name: str, path: Path, function: Callable, *arguments: Any) -> Any:
    """function(*arguments), what it raises made one line that says where in the file."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        where = f"config {name}" + (f", line {line}" if line else "")
        message = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        kind = "" if type(error) in (ValueError, fields.FieldError) else f"{type(error).__name__}: "
        raise ValueError(f"{where}: {kind}{message[:300]}") from error


def _line(error: BaseException, path: Path) -> int | None:
    """Where in the file it was raised."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _plain(config: Any) -> dict[str, Any]:
    """A ConfigDict, a mapping or a dataclass as nested dicts."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return fields.plain(config)
    config = config.to_dict() if hasattr(config, "to_dict") else config
    if not isinstance(config, Mapping):
        raise ValueError(f"get_config() must return a ConfigDict, a dict or a dataclass, got {shown(config)}")
    return _dicts(config)


def _dicts(value: Any) -> Any:
    return {name: _dicts(part) for name, part in value.items()} if isinstance(value, Mapping) else value
