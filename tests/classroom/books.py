"""A notebook of a title and cells of code."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def notebook(*sources):
    return new_notebook(cells=[new_markdown_cell("# t"), *map(new_code_cell, sources)])
