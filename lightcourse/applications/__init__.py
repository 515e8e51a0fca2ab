"""Working programs of compressed models, each beside a plain baseline: a module each.

Nothing is imported here: ``python -m lightcourse.applications.search`` runs a module that has not
been loaded yet.
"""
