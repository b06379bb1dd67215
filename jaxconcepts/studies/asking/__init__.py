"""Prompts asked of a language model: checkpoints, one pass over prompts, answers."""
