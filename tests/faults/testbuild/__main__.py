"""`python -m testbuild [--mutant NAME] [--strikes FILE --struck FILE] server|client …`: the product, patched."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from testbuild import mutants


def main() -> int:
    """Patches, then does what the rest of the command line says."""
    parser = argparse.ArgumentParser("testbuild")
    parser.add_argument("--mutant", choices=mutants.MUTANTS)
    parser.add_argument("--strikes", type=Path, help="the faults to come, as failpoints.write has written them")
    parser.add_argument("--struck", type=Path, help="a line is added for each fault, before it happens")
    parser.add_argument("product", choices=["server", "client"])
    given, rest = parser.parse_known_args()
    if given.mutant:
        mutants.MUTANTS[given.mutant]()
    if given.strikes:
        failpoints = importlib.import_module("testbuild.failpoints")  # not in the client, which knows no server
        failpoints.install(failpoints.read(given.strikes), given.struck)
    product = importlib.import_module({"server": "penstock_server.cli", "client": "penstock.cli"}[given.product])
    return int(product.main(rest) or 0)


if __name__ == "__main__":
    sys.exit(main())
