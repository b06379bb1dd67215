"""Patches of the concept in models trained on in-context regression."""
