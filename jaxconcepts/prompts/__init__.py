"""In-context tasks in text: families of concepts, and the prompts that show them by demonstrations."""
