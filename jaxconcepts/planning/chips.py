"""What is known of accelerators by their names: memory, peak rate, clock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import jax


class Chip(NamedTuple):
    """name: in words. memory: bytes a program can use, None where unknown. peak: documented FLOP/s in bfloat16, None
    where unknown. clock: cycles a second, to turn a TPU compiler's cycles into time; None where it gives no cycles."""

    name: str
    memory: int | None
    peak: float | None
    clock: float | None = None


GIB = 2**30

# Peak rates: docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e ("Peak compute per chip (bf16)"). Memory: what libtpu
# 0.0.42 itself allows a program of the 16, 95 and 32 GB that those pages give (it names the figure when a program needs
# more). Clocks are not published: these are the ones at which the matrix units' width gives the documented peak (v5e: 4
# units of 128 x 128; v5p: 8 of them; v6e: as v5p). With them the compiler's own cycles for a bfloat16 product of 8192 x
# 8192 matrices come to 88, 90 and 70 % of the peak, and those for reading and writing a large array to 81, 72 and 81 %
# of the documented memory bandwidth.
TPUS = {
    "TPU v5 lite": Chip("TPU v5e", int(15.75 * GIB), 197e12, 1.5e9),
    "TPU v5": Chip("TPU v5p", int(95.74 * GIB), 459e12, 1.75e9),
    "TPU v6 lite": Chip("TPU v6e", int(31.25 * GIB), 918e12, 1.75e9),
}

# NVIDIA's data sheets, dense bfloat16 on tensor cores: A100 312, H100 SXM, H200 989 TFLOP/s.
GPU_PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}

# libtpu, used to compile only, must not look for a TPU's metadata server (nor complain that there is none), nor hold
# the lock of the one process that may use this machine's chips.
COMPILE_ONLY = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def describe(device: jax.Device) -> Chip:
    """The chip that a device is, as far as it is known; the device may be one of a topology that is not here."""
    if device.device_kind in TPUS:
        return TPUS[device.device_kind]
    if device.platform == "cpu":
        # Devices of one host share its memory.
        share = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // max(1, len(jax.local_devices()))
        return Chip("CPU", share, None)
    peak = next((peak for name, peak in GPU_PEAKS.items() if name in device.device_kind), None)
    return Chip(device.device_kind, (device.memory_stats() or {}).get("bytes_limit"), peak)


def of_topology(name: str) -> Sequence[jax.Device]:
    """The devices of a TPU slice that need not exist here, such as "v5p:4x4x4", to compile for with libtpu.

    Raises ValueError without libtpu, and for a name that it does not know.
    """
    for variable, value in COMPILE_ONLY.items():
        os.environ.setdefault(variable, value)
    from jax.experimental import topologies
    from jax.experimental.compilation_cache import compilation_cache

    # A program for devices that are not here cannot be kept, and JAX warns of it.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "--topology needs the package libtpu (pip install 'jaxconcepts[plan]'); --local plans for this machine"
        ) from error
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    except Exception as error:
        raise ValueError(
            f"--topology must be a TPU slice, such as v5e:4x4, v5p:4x4x4 or v6e:8x8, got {name!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if devices[0].device_kind not in TPUS:
        known = ", ".join(chip.name for chip in TPUS.values())
        raise ValueError(f"--topology must be of {known}, got {name!r}, a {devices[0].device_kind}")
    return devices
