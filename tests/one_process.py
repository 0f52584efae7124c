"""Jobs one after another in one process, which imports torch once: `python one_process.py <JSON: [[stage, name, ...], ...]>`."""

import json
import sys

from medbench import cli

for words in json.loads(sys.argv[1]):
    if code := cli.main(words):
        sys.exit(f"{' '.join(words)}: exit code {code}")
