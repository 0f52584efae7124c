"""What a run will cost before it starts: downloads, disk, GPU memory, time, and what it can say. Nothing is fetched, nothing written."""

TRACKED = False  # a look ahead is no part of a result
