"""Eight devices on a CPU for every test, so that sharded programs run anywhere."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
