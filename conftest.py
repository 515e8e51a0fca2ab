"""What every test run shares: no network, and the same examples each time."""

import os

from hypothesis import settings

from lightcourse import PATIENT
from tools.no_network import network_guard

pytest_plugins = ["tools.tolerances", "tools.turns"]  # what nbval and xdist are told

# The sources of the notebooks are no modules: nbval runs what is made from them.
collect_ignore = ["sources"]

# Threads of tiny models wait for each other, on a busy machine a hundred times longer than
# they compute. Read when torch is imported, so it stands before the tests import it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# In a terminal of JupyterLab widgets are on, and nbval compares stills.
os.environ.update({**PATIENT, **os.environ, "LIGHTCOURSE_WIDGETS": "0"})

network_guard.install()
# No deadline: the first call of a kernel compiles it. No database: a run depends on no earlier one.
settings.register_profile("course", derandomize=True, deadline=None, database=None)
settings.load_profile("course")
