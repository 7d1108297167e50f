"""What a benchmark cannot do."""


class BenchError(Exception):
    """The server did not do what the benchmark needs; the message says what and why."""
