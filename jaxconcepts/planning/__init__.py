"""What a sweep or a model would need on given chips: compiled, never run."""
