"""Generation for real use: batches of unequal prompts, text streaming, a compiled decode step."""
