"""The in-context study: accuracy and Concept Decodability of language models, by concept."""
