"""Imported by every Python that starts with this folder on PYTHONPATH (tools/offline.py)."""

import network_guard

network_guard.install()
