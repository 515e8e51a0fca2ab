"""Keep the chatter of other libraries, while they prepare, from the report."""

import contextlib
import io
import logging
import warnings


@contextlib.contextmanager
def silence():
    """Let no warning, log line or print through."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)
