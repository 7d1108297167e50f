"""What travels on the wire: frames, messages, headers."""
