"""Scalings of the rotary frequencies for contexts longer than those of pre-training, as config.json names them.

A scaling turns the plain frequencies theta^(-2i / e) into others, and gives an amplitude that multiplies both cosine
and sine (so the scores' scale changes by its square). All in float32, as transformers computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxconcepts.models.layers import inverse_frequencies

Frequencies = Float[np.ndarray, " half"]


class Llama3(NamedTuple):
    """Llama-3.1's (Grattafiori et al. 2024): wavelengths beyond context / low_freq_factor tokens are stretched by
    `factor`, those below context / high_freq_factor kept, those between interpolated; `context`: of pre-training."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    context: int = 8192

    amplitude = 1.0

    def frequencies(self, theta: float, dim: int) -> Frequencies:
        plain = inverse_frequencies(theta, dim)
        wavelengths = np.float32(2 * np.pi) / plain
        # 0 where a wavelength is as long as the pre-training context / low factor, 1 at context / high factor.
        smooth = (np.float32(self.context) / wavelengths - np.float32(self.low_freq_factor)) / np.float32(
            self.high_freq_factor - self.low_freq_factor
        )
        smooth = np.clip(smooth, np.float32(0), np.float32(1))
        return (1 - smooth) * plain / np.float32(self.factor) + smooth * plain


class Linear(NamedTuple):
    """All wavelengths stretched by `factor` (Chen et al. 2023, arXiv 2306.15595)."""

    factor: float

    amplitude = 1.0

    def frequencies(self, theta: float, dim: int) -> Frequencies:
        return inverse_frequencies(theta, dim) / np.float32(self.factor)


class Dynamic(NamedTuple):
    """The base grows with a prompt that is longer than `context` ("dynamic NTK"). Up to there nothing changes, and the
    model's context is that: longer prompts are refused, because their frequencies would depend on their length."""

    factor: float

    amplitude = 1.0

    def frequencies(self, theta: float, dim: int) -> Frequencies:
        return inverse_frequencies(theta, dim)


class Yarn(NamedTuple):
    """YaRN (Peng et al. 2023, arXiv 2309.00071): dimensions that turn more than beta_fast times within `context` tokens
    are kept, those that turn less than beta_slow times stretched by `factor`, those between interpolated.

    truncate: whether the two borders are rounded to whole dimensions.
    """

    factor: float
    context: int
    amplitude: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def frequencies(self, theta: float, dim: int) -> Frequencies:
        def border(turns):
            return dim * math.log(self.context / (turns * 2 * math.pi)) / (2 * math.log(theta))

        low, high = border(self.beta_fast), border(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, dim - 1)
        high += 0.001 if low == high else 0
        ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
        plain = inverse_frequencies(theta, dim)
        return plain / np.float32(self.factor) * ramp + plain * (1 - ramp)


class LongRope(NamedTuple):
    """LongRoPE (Ding et al. 2024, arXiv 2402.13753): a factor for each frequency, `short` for prompts of up to
    `context` tokens and `long` beyond. is_long: which of the two the model uses."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    context: int
    amplitude: float
    is_long: bool = False

    def for_lengths(self, lengths: Int[np.ndarray, " n"]) -> LongRope:
        """With the factors for sequences of these lengths. Raises ValueError where they need both."""
        is_long = np.asarray(lengths) > self.context
        if is_long.any() and not is_long.all():
            given = sorted(set(np.asarray(lengths).tolist()))
            raise ValueError(
                f"sequences of up to {self.context} tokens and longer ones, answers included, have other rotary "
                f"frequencies in this model: give them in separate batches; got lengths {given}"
            )
        return self._replace(is_long=bool(is_long.all()))

    def frequencies(self, theta: float, dim: int) -> Frequencies:
        factors = np.array(self.long if self.is_long else self.short, np.float32)
        exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
        return np.float32(1) / (factors * np.float32(theta) ** exponents)


Scaling = Llama3 | Linear | Dynamic | Yarn | LongRope


def frequencies(theta: float, dim: int, scaling: Scaling | None) -> Frequencies:
    """theta^(-2i / dim), scaled; radians a token."""
    return inverse_frequencies(theta, dim) if scaling is None else scaling.frequencies(theta, dim)


KINDS: dict[str, type] = {"llama3": Llama3, "linear": Linear, "dynamic": Dynamic, "yarn": Yarn, "longrope": LongRope}
# The names in rope_parameters of each kind.
NUMBERS: dict[str, set[str]] = {
    "default": set(),
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "linear": {"factor"},
    "dynamic": {"factor"},
    "yarn": {
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate",
    },
    "longrope": {"factor", "short_factor", "long_factor", "original_max_position_embeddings", "attention_factor"},
}  # fmt: skip
KNOWN = set().union(*NUMBERS.values(), {"partial_rotary_factor"})


def from_hf(
    fields, name: str, given: Any, supported: Iterable[str], theta: float, contexts: tuple[int, int | None], dim: int
) -> tuple[float, Scaling | None]:
    """Base and scaling as an object of config.json says, every name in it understood and checked.

    fields: the `hf_config.Fields` that the object is of, which raises the errors. name: the object's. theta: the base
    where the object has none. contexts: max_position_embeddings, and original_max_position_embeddings where the config
    says it outside the object, which then counts. dim: of a head, the part that is turned.
    """
    if not isinstance(given, dict):
        fields.wrong(name, given, "an object")
    given = {key: value for key, value in given.items() if value is not None}
    theta = _number(fields, name, given, "rope_theta", theta)
    kind = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    if kind == "su" and "longrope" in supported:
        kind = "longrope"  # Its name in the first Phi-3 checkpoints.
    if kind not in supported:
        fields.wrong(f"rope_type of {name}", kind, " or ".join(map(repr, supported)))
    if given.get("partial_rotary_factor") == 1.0:
        del given["partial_rotary_factor"]
    if alien := {key: value for key, value in given.items() if key in KNOWN - NUMBERS[kind]}:
        takes = ", ".join(sorted(NUMBERS[kind])) or "nothing more"
        fields.wrong(name, alien, f"without these: rope_type {kind!r} takes {takes}")
    for key in set(given) - KNOWN:
        fields.unread(f"{name}.{key}", given.pop(key))
    return theta, None if kind == "default" else _SCALINGS[kind](fields, name, given, contexts, dim)


def to_hf(theta: float, scaling: Scaling | None) -> dict[str, Any]:
    """rope_parameters of config.json."""
    written: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if scaling is None:
        return written
    written["rope_type"] = next(kind for kind, scaled in KINDS.items() if isinstance(scaling, scaled))
    fields = scaling._asdict()
    fields.pop("is_long", None)
    theirs = {"context": "original_max_position_embeddings", "amplitude": "attention_factor"}
    theirs |= {"short": "short_factor", "long": "long_factor"}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
    return written | {theirs.get(key, key): value for key, value in plain.items()}


def _number(fields, name: str, given: dict, key: str, default: float | None = None) -> float:
    value = given.pop(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < 1e30):
        fields.wrong(f"{key} of {name}", value, "a positive number")
    return float(value)


def _original(fields, name: str, given: dict, contexts: tuple[int, int | None]) -> int:
    """The context of pre-training."""
    inside = given.pop("original_max_position_embeddings", contexts[0])
    value = inside if contexts[1] is None else contexts[1]
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 2**30:
        fields.wrong(f"original_max_position_embeddings of {name}", value, "a whole number from 2 on")
    return value


def _llama3(fields, name, given, contexts, dim) -> Llama3:
    factor, low, high = (_number(fields, name, given, k) for k in ("factor", "low_freq_factor", "high_freq_factor"))
    if high <= low:
        fields.wrong(f"high_freq_factor of {name}", high, f"above low_freq_factor = {low}")
    return Llama3(factor, low, high, _original(fields, name, given, contexts))


def _yarn(fields, name, given, contexts, dim) -> Yarn:
    original = _original(fields, name, given, contexts)
    factor = _number(fields, name, given, "factor", contexts[0] / original)
    fast, slow = (_number(fields, name, given, k, d) for k, d in (("beta_fast", 32.0), ("beta_slow", 1.0)))
    if fast < slow:
        fields.wrong(f"beta_fast of {name}", fast, f"at least beta_slow = {slow}")
    scales = [_number(fields, name, given, key) if key in given else None for key in ("mscale", "mscale_all_dim")]
    stretched = lambda by: 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0  # noqa: E731
    amplitude = stretched(scales[0]) / stretched(scales[1]) if all(scales) else stretched(1.0)
    amplitude = _number(fields, name, given, "attention_factor", amplitude)
    truncate = given.pop("truncate", True)
    if not isinstance(truncate, bool):
        fields.wrong(f"truncate of {name}", truncate, "true or false")
    return Yarn(factor, original, amplitude, fast, slow, truncate)


def _longrope(fields, name, given, contexts, dim) -> LongRope:
    original = _original(fields, name, given, contexts)
    factor = _number(fields, name, given, "factor", contexts[0] / original)
    amplitude = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    amplitude = _number(fields, name, given, "attention_factor", amplitude)
    tables = []
    for key in ("short_factor", "long_factor"):
        value = given.pop(key, None)
        numbers = value if isinstance(value, list) else []
        if len(numbers) != dim // 2 or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in numbers):
            fields.wrong(f"{key} of {name}", value, f"a list of {dim // 2} positive numbers, one a pair that is turned")
        if not all(0 < number < 1e30 for number in numbers):
            fields.wrong(f"{key} of {name}", value, "positive numbers")
        tables.append(tuple(map(float, numbers)))
    return LongRope(*tables, original, amplitude)


_SCALINGS = {
    "llama3": _llama3,
    "linear": lambda fields, name, given, contexts, dim: Linear(_number(fields, name, given, "factor")),
    "dynamic": lambda fields, name, given, contexts, dim: Dynamic(_number(fields, name, given, "factor")),
    "yarn": _yarn,
    "longrope": _longrope,
}
