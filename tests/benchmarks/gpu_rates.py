"""What the parts of the GPU battery share: shares of the device's peak rate, and shapes that do not fit."""

from __future__ import annotations

import gc
from collections.abc import Callable

import jax

from jaxconcepts.planning import chips

# NVIDIA's data sheets (A100, H100 SXM, H200), dense: float32 products as JAX does them by default, factors rounded to
# TF32 on tensor cores, and those at the highest precision. Those in bfloat16 are in `chips`.
PEAKS = {
    "tf32": {"A100": 156e12, "H100": 495e12, "H200": 495e12},
    "float32": {"A100": 19.5e12, "H100": 67e12, "H200": 67e12},
}


def peak(device: jax.Device, numbers: str) -> float | None:
    """FLOP/s that the device is documented to do in "bfloat16", "tf32" or "float32"; None where it is not known."""
    if numbers == "bfloat16":
        return chips.describe(device).peak
    return next((rate for name, rate in PEAKS[numbers].items() if name in device.device_kind), None)


def rate(flops: float, seconds: float, numbers: str, aim: float | None = None) -> dict:
    """Columns: FLOPs, FLOP/s, and of a device whose peak is known that and its share.

    aim: the share that there should be; it becomes the peer, with a ratio above 1 where it is reached.
    """
    columns = {"flops": flops, "flops_per_s": flops / seconds, "peak_of": numbers}
    most = peak(jax.devices()[0], numbers)
    if most is None:
        return columns
    columns |= {"peak_flops_per_s": most, "share": flops / seconds / most}
    return columns if aim is None else columns | against(f"{aim:g} of the peak", flops / most / aim, seconds)


def against(peer: str, peer_seconds: float, seconds: float, aim: float | None = 1) -> dict:
    """Columns of a comparison."""
    columns = {"peer": peer, "peer_s": peer_seconds, "ratio": peer_seconds / seconds}
    return columns if aim is None else columns | {"aim": aim}


def at_size(measure: Callable[[int], list[dict]], size: int) -> list[dict]:
    """The rows of measure(size); where the device has too little memory, of half, once, and the rows say so."""
    try:
        return measure(size)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
    # Here, where the error and the arrays in its frames are gone.
    gc.collect()
    return [row | {"note": f"out of memory at {size}, so at {size // 2}"} for row in measure(size // 2)]
