"""`python -m medbench`."""

import gc
import sys

from medbench.cli import main

gc.set_threshold(100_000, 50, 50)  # imports make objects that stay: looking through all of them again and again is a seventh of a start
sys.exit(main())
