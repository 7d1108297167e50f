"""Models are ready before the first client asks."""
