"""Generation for real use: many prompts at once, text as it is written, a compiled decode step."""
