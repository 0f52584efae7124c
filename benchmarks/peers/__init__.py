"""medbench beside what users can take instead: `python -m benchmarks.peers`."""
