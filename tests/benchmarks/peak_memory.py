"""The peak memory of a process, for benchmarks that start one for each measurement."""

import re
from pathlib import Path


def peak_bytes() -> int:
    """The largest resident size of this process so far, libraries included (Linux).

    Not getrusage's, which is at least that of the process which started this one.
    """
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
