"""Figures of tunings."""
