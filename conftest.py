"""What every test run shares: no network, and the same examples each time."""

from hypothesis import settings

from tools.no_network import network_guard

network_guard.install()
# No deadline: the first call of a kernel compiles it. No database: a run depends on no earlier one.
settings.register_profile("course", derandomize=True, deadline=None, database=None)
settings.load_profile("course")
