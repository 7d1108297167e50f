"""`python -m simulator`: a simulated ComfyUI in a process of its own, with ComfyUI's flags."""

import sys

from .flags import parse
from .simulator import run

if __name__ == "__main__":
    sys.exit(run(parse(sys.argv[1:])))
