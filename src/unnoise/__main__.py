"""`python -m unnoise` is `unnoise`."""

import sys

from unnoise.cli import main

if __name__ == "__main__":
    sys.exit(main())
