"""How tests compile in little time: unoptimized and by XLA's older emitters of fused loops."""

OLDER_EMITTERS = {"xla_cpu_use_fusion_emitters": False}
PROCESS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
}
"""The environment variables that do it for a process that a test starts."""
