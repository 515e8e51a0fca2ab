"""Models written so that other programs run them."""

from lightcourse.deployment.gguf import gguf_summary, save_gguf

__all__ = ["gguf_summary", "save_gguf"]
