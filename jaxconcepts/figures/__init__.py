"""Every picture, drawn from the store alone."""
