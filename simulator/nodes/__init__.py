"""Node classes of the simulator: those with real names and schemas, and those taken from an /object_info file."""
