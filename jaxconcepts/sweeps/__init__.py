"""Many runs as one program: packs of runs, laid out over a mesh of devices."""
