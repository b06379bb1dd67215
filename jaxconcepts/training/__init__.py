"""Optimisers and the training chunk: pure functions of arrays."""
