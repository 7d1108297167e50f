"""Pure: a prompt in, a rewritten prompt and the way back out."""
