"""`python -m counterpoint`: the command line, for places where the console script is not on the path."""

import sys

from counterpoint.common.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
