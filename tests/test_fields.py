"""Typed fields: what is read, what is refused and in which words, text of the command line, help, names of runs."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest

from jaxconcepts import fields, inferred_fields
from jaxconcepts.fields import field, section


@dataclass(frozen=True)
class Inner:
    dim: int = field(8, "dimensions", low=1, high=64)
    noise: float = field(0.1, "deviation of the noise", low=0)
    masks: tuple[tuple[float, ...], ...] | None = field(None, "bases; None for the named ones")
    late: int = field(0, "came later", low=0, added=True)
    context: int = field(3, "follows from dim", derived=True)

    def __post_init__(self):
        fields.check(self)
        if self.noise > self.dim:
            raise fields.FieldError("noise", f"must be at most dim = {self.dim}, got {self.noise}")


@dataclass(frozen=True)
class Config:
    seed: int = field(0, "of everything", low=0, high=2**32 - 1)
    how: Literal["auto", "map"] = field("auto", "how runs go")
    names: tuple[str, ...] = field(("a", "b"), "names of arms")
    shots: tuple[int, ...] = field((), "demonstrations", low=0)
    clip: float = field(math.inf, "largest gradient", above=0, infinite=True)
    rate: float = field(1e-3, "learning rate", low=0, below=1)
    remat: bool = field(False, "recompute")
    path: str | None = field(None, "a file")
    patterns: Mapping[str, tuple] = field({}, "arms of one's own")
    size: int = field(0, "no bound but the machine's")
    task: Inner = section(Inner, dim=16)

    def __post_init__(self):
        fields.check(self)


def test_the_defaults_are_a_config_and_read_back():
    values = fields.defaults(Config)
    assert values["task"] == {"dim": 16, "noise": 0.1, "masks": None, "late": 0}
    assert fields.read(Config, values) == Config() and fields.read(Config, {}) == Config()


def test_what_json_and_numpy_give_is_taken():
    given = {"names": ["c"], "shots": np.array([1, 2]), "seed": np.int64(3), "rate": 0, "task": {"masks": [[1, 0.5]]}}
    read = fields.read(Config, given)
    assert (read.names, read.shots, read.seed, read.task.masks) == (("c",), (1, 2), 3, ((1.0, 0.5),))
    assert type(read.seed) is int and type(read.rate) is float and hash(read.task) == hash(read.task)
    assert Config(names=["c"]).names == ("c",)


REFUSED = [
    ({"seed": 1.5}, "seed must be an integer from 0 to 4294967295, got 1.5"),
    ({"seed": "0"}, "seed must be an integer from 0 to 4294967295, got '0'"),
    ({"seed": None}, "seed must be an integer from 0 to 4294967295, got None"),
    ({"seed": True}, "seed must be an integer from 0 to 4294967295, got True"),
    ({"seed": -1}, "seed must be an integer from 0 to 4294967295, got -1"),
    ({"seed": 2**32}, "seed must be an integer from 0 to 4294967295, got 4294967296"),
    ({"remat": "yes"}, "remat must be true or false, got 'yes'"),
    ({"remat": 1}, "remat must be true or false, got 1"),
    ({"rate": math.nan}, "rate must be a number of at least 0 and below 1, finite in float32, got nan"),
    ({"rate": 1}, "rate must be a number of at least 0 and below 1, got 1"),
    ({"rate": True}, "rate must be a number of at least 0 and below 1, got True"),
    ({"clip": math.nan}, "clip must be a positive number, finite in float32 or inf, got nan"),
    ({"clip": 1e300}, "clip must be a positive number, finite in float32 or inf, got 1e+300"),
    ({"size": 10**12}, "size must be an integer and at most 2147483647, got 1000000000000"),
    ({"how": "maps"}, "how must be one of auto, map, got 'maps'"),
    ({"names": "plain,name"}, "names must be a tuple, each element a text, got 'plain,name'"),
    ({"names": [1]}, "names must be a tuple, each element a text, got 1"),
    ({"shots": [1, -1]}, "shots must be a tuple, each element an integer of at least 0, got -1"),
    ({"shots": 4}, "shots must be a tuple, each element an integer of at least 0, got 4"),
    ({"path": 3}, "path must be a text, or None, got 3"),
    ({"patterns": []}, "patterns must be a mapping, got []"),
    ({"task": 3}, "task must be a section with dim, noise, masks, late, context, got 3"),
    ({"task": {"noise": math.inf}}, "task.noise must be a number of at least 0, finite in float32, got inf"),
    ({"task": {"noise": 1e300}}, "task.noise must be a number of at least 0, finite in float32, got 1e+300"),
    (
        {"task": {"masks": [[math.nan]]}},
        "each element a tuple, each element a number, finite in float32, or None, got [nan]",
    ),
    ({"task": {"dim": 10**12}}, "task.dim must be an integer from 1 to 64, got 1000000000000"),
    ({"task": {"dim": 10, "noise": 11}}, "task.noise must be at most dim = 10, got 11.0"),
    ({"task": {"context": 5}}, "unknown config field task.context; there are task.dim, task.noise"),
    ({"task": {"nois": 0.5}}, "unknown config field task.nois; did you mean task.noise?"),
    ({"sed": 0}, "unknown config field sed; did you mean seed?"),
    ({"how": "x" * 1000}, "... (1002 characters)"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=lambda case: str(case)[:40])
def test_a_value_of_another_type_or_out_of_bounds_is_named(values, message):
    with pytest.raises(fields.FieldError) as raised:
        fields.read(Config, values)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_built_by_hand_it_is_checked_too():
    with pytest.raises(fields.FieldError, match="seed must be an integer from 0"):
        Config(seed=1.5)
    with pytest.raises(fields.FieldError, match="task must be a section"):
        Config(task=3)
    with pytest.raises(fields.FieldError, match="context must be an integer"):
        Inner(context=2.0)


TEXTS = [
    ("names", "plain,name", ("plain", "name")),
    ("names", "plain", ("plain",)),
    ("names", "plain,", ("plain",)),
    ("names", "('plain', 'name')", ("plain", "name")),
    ("names", "(plain,name)", ("plain", "name")),
    ("names", "", ()),
    ("names", "()", ()),
    ("shots", "1,2,4", (1, 2, 4)),
    ("shots", "[1, 2]", (1, 2)),
    ("shots", "3", (3,)),
    ("task.masks", "((1,0),(0,1))", ((1.0, 0.0), (0.0, 1.0))),
    ("task.masks", "none", None),
    ("path", "none", None),
    ("path", "a,b", "a,b"),
    ("remat", "True", True),
    ("rate", "3e-3", 3e-3),
    ("rate", "0", 0.0),
    ("clip", "inf", math.inf),
    ("seed", "7", 7),
    ("how", "map", "map"),
    ("patterns", "{'mine': [('.*', 'train')]}", {"mine": [(".*", "train")]}),
]


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_text_of_the_command_line(name, text, value):
    values = fields.override_text(Config, fields.defaults(Config), {name: text})
    assert fields.flat(Config, values)[name] == value
    read = fields.read(Config, values)
    if not isinstance(value, dict | str | None):
        again = fields.override_text(Config, fields.defaults(Config), {name: fields.as_text(value)})
        assert fields.read(Config, again) == read


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("remat", "yes", "remat must be true or false, got 'yes'"),
        ("remat", "1", "remat must be true or false, got 1"),
        ("seed", "1.5", "seed must be an integer from 0 to 4294967295, got 1.5"),
        ("seed", "1_0", "seed must be an integer"),
        ("rate", "fast", "rate must be a number of at least 0 and below 1, got 'fast'"),
        ("rate", "nan", "rate must be a number of at least 0 and below 1, finite in float32, got nan"),
        ("shots", "1,x", "shots must be a tuple, each element an integer of at least 0, got '1,x'"),
        ("shots", "(1,", "shots must be a tuple"),
        ("task", "3", "task is a section, so one of its fields must be named, such as task.dim"),
        ("tsk.dim", "3", "unknown config field tsk.dim; did you mean task.dim?"),
        ("task.dimm", "3", "unknown config field task.dimm; did you mean task.dim?"),
        ("noise", "3", "unknown config field noise; did you mean task.noise?"),
        ("task.masks", "x" * 5000, "(5002 characters)"),
        ("\ud800", "3", "unknown config field \\ud800; there are seed"),
    ],
)
def test_bad_text_is_named(name, text, message):
    with pytest.raises(fields.FieldError) as raised:
        fields.override_text(Config, fields.defaults(Config), {name: text})
    assert message in str(raised.value) and "\n" not in str(raised.value)
    str(raised.value).encode()


def test_a_sweep_gives_values_of_the_same_types():
    base = fields.defaults(Config)
    swept = fields.override(Config, base, {"task.dim": np.int64(4), "rate": 0, "shots": [2]})
    assert swept["task"]["dim"] == 4 and type(swept["rate"]) is float and swept["shots"] == (2,)
    assert base["task"]["dim"] == 16
    for changed, message in [({"task.dim": 4.0}, "task.dim must be"), ({"task": {}}, "task is a section")]:
        with pytest.raises(fields.FieldError, match=message):
            fields.override(Config, base, changed)


def test_a_field_that_was_added_later_names_no_run_at_its_default():
    values = fields.defaults(Config)
    old = {**values, "task": {name: value for name, value in values["task"].items() if name != "late"}}
    assert fields.identity(Config, values) == fields.identity(Config, old) == old
    changed = fields.override(Config, values, {"task.late": 1})
    assert fields.identity(Config, changed) == changed


def test_help_lists_every_field_with_type_value_and_doc():
    text = fields.describe(Config, fields.override(Config, fields.defaults(Config), {"task.dim": 4}))
    for name, f in fields.declared(Config).items():
        assert f"--config.{name}=" in text and f.doc in text
    assert "--config.task.dim=4\n      dimensions; an integer from 1 to 64, default 16" in text
    assert "--config.names=a,b" in text and "--config.path=none" in text and "context" not in text


def test_a_section_of_several_parts():
    @dataclass(frozen=True)
    class Numbers:
        b1: float = field(0.9, "of the first moment", low=0, below=1)

    @dataclass(frozen=True)
    class Static:
        steps: int = field(10, "of the run", low=1)

    both = dataclasses.make_dataclass("Train", [], bases=(Static, Numbers), frozen=True)
    read = fields.read(both, {"steps": 3, "b1": 0.5})
    assert fields.part(read, Static) == Static(3) and fields.part(read, Numbers) == Numbers(0.5)
    assert set(fields.defaults(both)) == {"b1", "steps"}


def test_fields_without_a_declaration_have_the_types_of_their_defaults():
    values = {"seed": 0, "task": {"noise": 0.1, "names": ("a",), "free": (), "masks": None}, "clip": math.inf}
    kind = inferred_fields.inferred(values, {"task.late": 0})
    assert fields.read(kind, {"task": {"noise": 1, "free": ["x", 2]}}).task.free == ("x", 2)
    assert fields.defaults(kind) == {**values, "task": {**values["task"], "late": 0}}
    assert fields.identity(kind, fields.defaults(kind)) == values
    given = fields.override_text(kind, values, {"task.masks": "[[1, 0]]", "clip": "inf", "task.names": "a,b"})
    assert given["task"]["masks"] == [[1, 0]] and given["task"]["names"] == ("a", "b")
    for bad in ({"seed": 1.5}, {"seed": True}, {"task": {"noise": math.inf}}, {"task": {"names": "a"}}, {"sed": 1}):
        with pytest.raises(fields.FieldError):
            fields.read(kind, bad)


def test_a_field_that_must_be_given_and_one_that_must_not_be_empty():
    @dataclass(frozen=True, kw_only=True)
    class Flags:
        workdir: str = field(fields.REQUIRED, "where", low=1)

    assert fields.read(Flags, {"workdir": "x"}).workdir == "x"
    with pytest.raises(fields.FieldError, match="workdir is missing"):
        fields.read(Flags, {})
    with pytest.raises(fields.FieldError, match="workdir must be a text that is not empty, got ''"):
        fields.read(Flags, {"workdir": ""})
