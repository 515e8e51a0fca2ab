"""Small working programs, before and after compression: a module each.

Nothing is imported here: ``python -m lightcourse.applications.search`` runs a module that has not
been loaded yet.
"""
