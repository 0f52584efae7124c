"""`python -m medbench`."""

import gc
import os
import sys

from medbench.cli import main

gc.set_threshold(100_000, 50, 50)  # imports make objects that stay: looking through all of them again and again is a seventh of a start
code = main()
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)  # all files are closed; taking torch apart object by object would take as long as a third of its start
