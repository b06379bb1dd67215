"""Figures of the causal study."""
