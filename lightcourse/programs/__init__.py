"""Models as programs: what jitted text generation and jitted encoding have in common."""
