"""The arguments of a command: flags, declared in a dataclass of typed fields, and a config with its changes.

    @dataclass(frozen=True, kw_only=True)
    class Flags(WorkdirFlags):
        k: int = field(10, "neighbours", low=1)

    flags = parse(argv, Flags)
    flags, config = parse_with_config(argv, Flags, IclConfig, example="icl")

--flag=value, --flag value, --yes_or_no, --noyes_or_no; --config=FILE|NAME, --config.field=value.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from jaxconcepts import field_values, fields, nested
from jaxconcepts.commands import config_files
from jaxconcepts.fields import REQUIRED, FieldError, field

if TYPE_CHECKING:
    from jaxconcepts.sweeps import Search

Flags = TypeVar("Flags")
CONFIG = "a config file (Python, which is executed) or the name of a packaged config; --config.field=value sets a field"


@dataclass(frozen=True, kw_only=True)
class WorkdirFlags:
    """What most commands take."""

    workdir: str = field(REQUIRED, "the run directory: a local path or gs://...", low=1)


@dataclass(frozen=True, kw_only=True)
class TrainingFlags(WorkdirFlags):
    """What `train` and `sweep` take."""

    extend: bool = field(False, "make the existing runs longer, up to the config's larger train.steps")


class Config(NamedTuple):
    """A config as it was read. fields: the typed dataclass. values: the same, nested, as JSON has it, without fields
    that were added later and are at their default. changed: the dotted fields that the command line gave."""

    fields: Any
    values: dict[str, Any]
    changed: tuple[str, ...]
    file: config_files.ConfigFile

    def sweep(self) -> list[dict[str, Any]] | None:
        """The overrides of get_sweep(), their values checked as the config's own; None where there is none.

        Raises ValueError, naming the point, for a field that there is not and a value that one does not take.
        """
        overrides = self.file.sweep()
        if overrides is None:
            return None
        return [self._checked(override, f"point {place} of the sweep") for place, override in enumerate(overrides)]

    def search(self) -> Search | None:
        """What get_search() returns, the bounds and choices of its fields checked; None where there is none.

        Raises ValueError for a field that there is not and a bound or choice that one does not take.
        """
        search = self.file.search()
        for corner in () if search is None else search.corners():
            self._checked(corner, "a point of the search")
        return search

    def _checked(self, override: Mapping[str, Any], what: str) -> dict[str, Any]:
        """The override with values as the fields have them."""
        known = fields.declared(type(self.fields))
        try:
            return nested.as_json({name: fields.checked(known, name, value) for name, value in override.items()})
        except FieldError as error:
            raise ValueError(f"{what}, {dict(override)}, is invalid: {error}") from None


def parse(argv: list[str], kind: type[Flags]) -> Flags:
    """The command's flags. With --help they are listed, and that is all.

    Raises FieldError for an argument that is no flag of the command, naming the nearest, and a value that a flag does
    not take.
    """
    given, _ = _split(argv[1:], kind, with_config=False)
    if "help" in given:
        _show_help(argv[0], kind)
    return _flags(kind, given)


def parse_with_config(
    argv: list[str], kind: type[Flags], config_kind: type | Callable[[Mapping[str, Any]], type], example: str
) -> tuple[Flags, Config]:
    """The flags, as `parse` reads them, and the config of --config, changed by --config.field=value.

    config_kind: the dataclass of its fields, or what gives it for the file's values. example: a config's name.
    """
    given, changed = _split(argv[1:], kind, with_config=True)
    name = changed.pop("", None)
    if "help" in given and name is None:
        _show_help(argv[0], kind, example)
    if "help" not in given:
        flags = _flags(kind, given)
        if name is None:
            raise FieldError("--config=FILE", f"is needed, e.g. --config={example}")
    file = config_files.load(name)
    if not isinstance(config_kind, type):
        config_kind = config_kind(file.values)
    values = fields.override_text(config_kind, file.values, changed)
    config = fields.read(config_kind, values)
    if "help" in given:
        _show_help(argv[0], kind, example, f"{name}:\n{fields.describe(config_kind, fields.plain(config))}")
    # What the file or the command line names, or a sweep varies, is part of the run's name in any case.
    kept = [*fields.flat(config_kind, values), *(name for override in file.sweep() or () for name in override)]
    kept += getattr(file.search(), "fields", ())
    named = nested.as_json(fields.identity(config_kind, fields.plain(config), keep=kept))
    return flags, Config(config, named, tuple(changed), file)


def program() -> str:
    """The command line's name as it was started."""
    as_module = Path(sys.argv[0]).parts[-2:] == ("jaxconcepts", "__main__.py")
    return "python -m jaxconcepts" if as_module else "jaxconcepts"


def _split(arguments: list[str], kind: type, with_config: bool) -> tuple[dict[str, str], dict[str, str]]:
    """Texts of the flags by name, and of the config's fields; that of --config itself under ""."""
    known = fields.declared(kind)
    flags: dict[str, str] = {}
    changed: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        name, equals, text = argument.removeprefix("--").partition("=")
        if argument in ("-h", "--help"):
            flags["help"] = ""
            continue
        if not argument.startswith("--") or not name:
            shown = field_values.shown(argument)
            raise FieldError("arguments", f"must be flags of the form --name=value, got {shown}")
        is_config = with_config and (name == "config" or name.startswith("config."))
        negated = name.removeprefix("no")
        if not is_config and name not in known and negated in known and known[negated].type in _BOOLS and not equals:
            flags[negated] = "false"
            continue
        if not is_config and name not in known:
            raise _unknown(name, [*known, *["config"] * with_config])
        if not equals:
            text = "true" if not is_config and known[name].type in _BOOLS else next(left, None)
            if text is None:
                raise FieldError(f"--{name}", f"needs a value: --{name}=VALUE")
        (changed if is_config else flags)[name.removeprefix("config").removeprefix(".") if is_config else name] = text
    return flags, changed


_BOOLS = (bool, bool | None)


def _unknown(name: str, known: Iterable[str]) -> FieldError:
    hint = field_values.unknown(name, known).message
    return FieldError(
        "unknown flag", f"--{field_values.shown(name)[1:-1]}; {hint.replace('did you mean ', 'did you mean --')}"
    )


def _flags(kind: type[Flags], given: Mapping[str, str]) -> Flags:
    known = fields.declared(kind)
    values = {}
    for name, declared in known.items():
        if name in given:
            try:
                values[name] = field_values.from_text(name, declared.type, given[name], declared.limits)
            except FieldError as error:
                raise error.under("--") from None
        elif declared.default is REQUIRED:
            raise FieldError(f"--{name}", f"is needed: {declared.doc}")
    if isinstance(values.get("workdir"), str):
        from jaxconcepts.store import files

        values["workdir"] = os.fspath(files.resolve(values["workdir"]))
    try:
        return kind(**values)
    except FieldError as error:
        raise error.under("--") from None


def _show_help(command: str, kind: type, example: str | None = None, config: str = "") -> None:
    print(f"usage: {program()} {command} [--flag=value ...]\n")
    for name, declared in fields.declared(kind).items():
        default = declared.default
        shown = "needed" if default is REQUIRED else f"default {fields.as_text(default)}"
        print(f"  --{name:<18} {declared.doc}" + ("" if default in (None, "", ()) else f" ({shown})"))
    if example is not None:
        print(f"  --{'config':<18} {CONFIG}")
        print(f"\nfields of {config}" if config else f"\n--config={example} --help lists the fields of that config")
    raise SystemExit(0)
