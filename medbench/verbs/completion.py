"""Completion for a shell: verbs, flags, and names of models, data sets, modes and runs. Made anew when registries change.

Example: python -m medbench completion bash > ~/.local/share/bash-completion/completions/medbench
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from medbench.command import add_config_options, read_config, runs
from medbench.config import Config

KINDS: dict[str, Callable[[Config], list[str]]] = {
    "model": lambda config: [*config.models],
    "dataset": lambda config: [*config.datasets],
    "mode": lambda config: [*config.modes],
    "run": lambda config: [*runs()],
}
"""What an argument of this name, or of its plural, takes."""
BASH = """\
_medbench() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} last= words= at
    for ((at = COMP_CWORD - 1; at > 1; at--)); do
        [[ ${{COMP_WORDS[at]}} == -* ]] && {{ last=${{COMP_WORDS[at]}}; break; }}
    done
    if ((COMP_CWORD == 1)); then words="{verbs}"
    elif [[ $cur == -* ]]; then
        case $verb in
{flags}
        esac
    else
        case "$verb $last" in
{names}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _medbench medbench
"""
ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("shell", choices=("bash", "zsh"))
    add_config_options(parser)
    parser.set_defaults(verbs=dict)


def execute(args: argparse.Namespace) -> None:
    """Print the script."""
    sys.stdout.write((ZSH if args.shell == "zsh" else "") + script(args.verbs(), read_config(args)))


def script(verbs: dict[str, argparse.ArgumentParser], config: Config) -> str:
    """For bash; zsh reads it too."""
    flags = [f'            {verb}) words="{" ".join(_flags(parser))}" ;;' for verb, parser in verbs.items()]
    names = [line for verb, parser in verbs.items() for line in _names(verb, parser, config)]
    return BASH.format(verbs=" ".join(verbs), flags="\n".join(flags), names="\n".join(names))


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def _names(verb: str, parser: argparse.ArgumentParser, config: Config) -> Iterator[str]:
    """A line for each flag that takes names, and one for the arguments without a flag."""
    positional: list[str] = []
    for action in parser._actions:
        kind = KINDS.get((action.metavar if isinstance(action.metavar, str) else action.dest).lower().removesuffix("s"))
        if kind is None:
            continue
        for flag in action.option_strings:
            yield f'            "{verb} {flag}") words="{" ".join(kind(config))}" ;;'
        if not action.option_strings:
            positional += kind(config)
    if positional:
        yield f'            "{verb} "*) words="{" ".join(dict.fromkeys(positional))}" ;;'
