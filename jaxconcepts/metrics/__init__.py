"""Arrays in, arrays out: decodability, probes, geometry and statistics, batched over every leading axis."""
