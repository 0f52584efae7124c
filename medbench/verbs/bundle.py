"""A run with its weights and data as one tar, to be carried to a site without a network; `unbundle` unpacks it there.

What is missing is fetched first. Gated and restricted things, and data of one's own, are packed only where --include names them.

Example: python -m medbench bundle open open.tar
"""

import argparse

from medbench.command import add_config_options, output, read_config
from medbench.errors import MedbenchError
from medbench.jobs import files
from medbench.supplies import amount, bundle, fetch_all, needed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    add_config_options(parser, run=True)
    parser.add_argument("out", type=output, help="the tar to write")
    parser.add_argument("--include", nargs="+", default=[], metavar="NAME", help="models and data sets that you may pass on")
    parser.add_argument("--without", nargs="+", default=[], metavar="NAME", help="models and data sets that the other site has")


def execute(args: argparse.Namespace) -> None:
    """Do it. Raises MedbenchError for what may not be passed on without a word, and for what is missing."""
    config, out = read_config(args), args.out
    if out.suffix != ".tar":
        raise MedbenchError(out, "is no name of a tar", "give a name that ends in .tar: weights hardly pack, so nothing is compressed")
    if kind := files.irregular(out):
        raise MedbenchError(out, f"is {kind}", "give the name of a file")
    packed = bundle.require_permission(needed(config), args.include, args.without)
    there = fetch_all(config, packed)
    size = bundle.write(out, config.run.run, bundle.members(config, there, out.name))
    print(f"wrote {out} ({amount(size)}); there, in a clone: `python -m medbench unbundle {out.name}`")
