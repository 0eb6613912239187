"""The command `penstock`: looks at runs, and sends what is left of them. `penstock --help` tells the rest."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from penstock.cli.arguments import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, or 1 with a sentence on stderr, or 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    try:
        return _run(args)
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace) -> int:
    # Loaded here, so that help needs no gRPC.
    from penstock.cli import commands  # noqa: PLC0415
    from penstock.errors import PenstockError  # noqa: PLC0415

    try:
        code: int = getattr(commands, args.command)(args) or 0
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PenstockError, ValueError, ImportError, OSError) as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    return code
