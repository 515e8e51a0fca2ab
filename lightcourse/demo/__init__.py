"""The demo for browsers: a small model, what it answers with, and the page around them."""

from lightcourse.demo.serving import open_server
from lightcourse.demo.site import build

__all__ = ["build", "open_server"]
