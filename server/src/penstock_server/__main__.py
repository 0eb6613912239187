"""`python -m penstock_server` is `penstock-server`."""

import sys

from penstock_server.cli import main

if __name__ == "__main__":
    sys.exit(main())
