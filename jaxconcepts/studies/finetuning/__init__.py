"""Tuning of some layers: Concept Decodability and accuracy before and after."""
