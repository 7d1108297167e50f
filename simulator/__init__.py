"""A ComfyUI look-alike to develop and demonstrate against."""
