"""Jobs in one process, which imports torch once: `python one_process.py <configfile> <JSON: [[stage, name, ...], ...]>`."""

import json
import os
import sys
from pathlib import Path

from medbench import cli, command, config

loaded = config.from_files([Path("config/config.yaml"), Path(sys.argv[1])], Path())
os.environ[command.RESOLVED] = str(cli.write_resolved(loaded))  # as a start of Snakemake does
for words in json.loads(sys.argv[2]):
    if code := cli.main(words):
        sys.exit(f"{' '.join(words)}: exit code {code}")
