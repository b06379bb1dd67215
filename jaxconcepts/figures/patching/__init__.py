"""Figures of patches in models trained on in-context regression."""
