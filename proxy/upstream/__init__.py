"""The side that faces ComfyUI."""
