"""Hidden states of thousands of prompts, streamed to disk."""
