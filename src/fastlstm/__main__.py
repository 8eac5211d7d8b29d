"""The command ``fastlstm``, also ``python -m fastlstm``.

Each sub-command is a module whose docstring is its help and which has two functions,
``add_arguments(parser)`` and ``run(arguments) -> int``; to add one, add a line to `COMMANDS`.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence

from fastlstm._commands.command import CommandError
from fastlstm._version import __version__

COMMANDS = {
    "bench": "fastlstm._commands.bench.bench",
    "demo": "fastlstm._commands.demo.demo",
    "export": "fastlstm._commands.export",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    It is 0, 1 on failure, 2 on misuse, 130 on Ctrl-C, and 141 where nobody reads the output any
    more, as `head` does not: what a shell says of a program that SIGINT or SIGPIPE has ended.
    """
    try:
        try:
            return _run(argv)
        finally:
            print(end="", flush=True)  # at exit it would be too late to handle that it fails
    except BrokenPipeError:
        _give_up_output()
        return 141
    except OSError as error:  # of the output, if it is full; files have a message of their own
        _give_up_output()
        print(f"fastlstm: error: {error}", file=sys.stderr)
        return 1


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except CommandError as error:
        with contextlib.suppress(OSError):
            print(end="", flush=True)  # what was found before it failed comes first
        print(f"fastlstm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfastlstm: interrupted", file=sys.stderr)
        return 130


def _give_up_output() -> None:
    """Send to nowhere what cannot be written: at exit, Python would try again, and complain."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description and shows the defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastlstm", description="The fastest LSTM on a CPU, for training and for inference."
    )
    parser.add_argument("--version", action="version", version=f"fastlstm {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(module_name)
        summary, _, details = (module.__doc__ or "").partition("\n\n")
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\n{details}",
            formatter_class=_HelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
