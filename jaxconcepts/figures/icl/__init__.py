"""Figures of the in-context study."""
