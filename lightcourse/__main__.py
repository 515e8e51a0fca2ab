"""``python -m lightcourse``: the same as the command ``lightcourse``."""

import sys

from lightcourse.cli import main

if __name__ == "__main__":
    sys.exit(main())
