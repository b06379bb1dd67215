"""Two processes of four devices as one job, killed ten times at random: nothing lost, nothing twice."""

import os
import random
import time

import pytest

pytestmark = pytest.mark.slow


def test_a_job_killed_ten_times_at_random_ends_with_the_same_tables(
    start_job, job, sweep, assert_same_tables, tmp_path
):
    """Each time one process, at a random moment after the job has got a little further, and then the rest of it."""
    points = {"RANKS": "1", "RATES": "1e-3,3e-3,1e-2,3e-2"}
    sweep(tmp_path / "whole", **points)
    tmp_path, rng = tmp_path / "killed", random.Random(0)
    small = points | {"AT_ONCE": "2"}  # six packs of two runs
    for _ in range(10):
        both, before, patience = start_job(tmp_path, **small), files(tmp_path), rng.randint(1, 5)
        for _ in range(3000):
            if len(files(tmp_path) - before) >= patience or all(process.poll() is not None for process in both):
                break
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.3))
        first = rng.randrange(2)
        both[first].kill()
        time.sleep(rng.uniform(0, 0.3))
        both[1 - first].kill()
        for process in both:
            process.communicate()
    job(tmp_path, **small)
    # One process on one device compiles to another order of summation, as in test_jobs.
    assert_same_tables(tmp_path, tmp_path.parent / "whole", relative=1e-6)


def files(workdir):
    """What has been written."""
    # Unlike rglob, walk passes over what is renamed meanwhile.
    return {f"{folder}/{name}" for folder, folders, names in os.walk(workdir) for name in (*folders, *names)}
