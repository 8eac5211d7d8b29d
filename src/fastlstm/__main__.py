"""The command ``fastlstm``, also ``python -m fastlstm``.

Each sub-command is a module whose docstring is its help and which has two functions,
``add_arguments(parser)`` and ``run(arguments) -> int``; to add one, add a line to `COMMANDS`.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from fastlstm._commands.command import CommandError
from fastlstm._version import __version__

COMMANDS = {"bench": "fastlstm._commands.bench.bench", "demo": "fastlstm._commands.demo.demo"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 on failure, 2 on misuse, 130 on Ctrl-C."""
    try:
        arguments = _parser().parse_args(argv)
        return arguments.run(arguments)
    except CommandError as error:
        print(f"fastlstm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfastlstm: interrupted", file=sys.stderr)
        return 130


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
