"""The progress bar of long work."""

import os
import sys


def bar(*arguments, show: bool = True, **options):
    """Return tqdm's bar, for a terminal or a notebook, or one that draws nothing.

    Parameters
    ----------
    show : bool
        False draws nothing. Neither does it where the variable TQDM_DISABLE, which tqdm
        overlooks in notebooks, silences a whole run.
    *arguments, **options
        As tqdm's.
    """
    from tqdm.auto import tqdm

    silent = os.environ.get("TQDM_DISABLE", "0") != "0"
    return tqdm(*arguments, disable=silent or not show, **options)


def in_terminal() -> bool:
    """Tell whether stderr is a terminal: nobody looks at a bar in a pipe or a log file."""
    return sys.stderr.isatty()
