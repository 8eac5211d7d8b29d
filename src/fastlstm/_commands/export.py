"""Write a trained network as C, to be compiled without Python.

The file is one that `fastlstm.files.save` wrote. MODEL.h comes beside the source, unless one
header is asked for. See docs/export.md.
"""

import argparse
from pathlib import Path

from fastlstm import export
from fastlstm._commands.command import CommandError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("model", type=Path, help="a network of fastlstm.files.save")
    parser.add_argument("path", type=Path, help="the source to write, MODEL.c")
    parser.add_argument("--name", help="what names in it begin with (that of the file)")
    parser.add_argument(
        "--storage",
        choices=["full", "bfloat16"],
        default="full",
        help="bfloat16 halves weights",
    )
    parser.add_argument("--single-header", action="store_true", help="one file, MODEL.h")
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    try:
        from fastlstm import files
    except ImportError as error:
        raise CommandError(str(error)) from error
    try:
        export.c(
            arguments.path,
            files.load(arguments.model),
            name=arguments.name,
            storage=None if arguments.storage == "full" else arguments.storage,
            single_header=arguments.single_header,
            overwrite=arguments.force,
        )
    except FileExistsError as error:
        raise CommandError(f"{error}".replace("overwrite=True", "--force")) from error
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    return 0
