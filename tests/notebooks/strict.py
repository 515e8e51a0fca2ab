"""nbval on a made-up notebook, with the project's own settings."""

import os
import subprocess
import sys

from tools import notebooks


def nbval(path, *options):
    """Run strict nbval on a notebook or a folder of them; return status and what it said."""
    folder = path if path.is_dir() else path.parent
    settings = ["-q", "--color=no", "-c", notebooks.ROOT / "pyproject.toml", "--rootdir", folder]
    layer = ["-p", "tools.tolerances", "--nbval", "--nbval-current-env", path, *options]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, *layer],
        env=os.environ | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        cwd=notebooks.ROOT,
    )
    return run.returncode, run.stdout
