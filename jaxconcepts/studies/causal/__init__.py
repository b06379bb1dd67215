"""The causal study: what language models do when the concept in their stream is changed."""
