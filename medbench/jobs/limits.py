"""Bounds of what comes from outside, in one place: an input beyond them is refused by one line before it costs memory or time."""

TRACKED = False  # what is refused makes no result

CONFIG_CHARACTERS = 4 * 2**20
"""Of a registry or run configuration with its aliases written out (the shipped registries: 0.1 * 2**20). A value counts `CONFIG_VALUE`."""
CONFIG_VALUE = 16
CONFIG_DEPTH = 32
"""Mappings and lists within each other."""
INTEGER_BITS = 63
"""Of a number in a configuration."""
RESAMPLES = 10**6
NAME = 100
"""Characters of a name: file names hold it with a host and a process, and a file name has 255 bytes."""
QUOTED = 200
"""Characters of a value that an error quotes."""
