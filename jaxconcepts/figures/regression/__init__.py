"""Figures of trainings on in-context regression."""
