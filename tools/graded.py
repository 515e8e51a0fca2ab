"""What nbgrader reads in a cell: which one the learner writes, which one gives points, how many.

Nobody writes it by hand. It follows from what stands in ``exercises.py`` anyway: the delimiters,
the function's name, and the stars in the heading of the exercise. nbgrader knows a cell by its
``grade_id`` for as long as there are submissions, so a function keeps its name.
"""

import re

HEADING = re.compile(r"(?m)^##? .*")
FUNCTION = re.compile(r"(?m)^def (\w+)")
FRESH = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}


def with_points(notebook):
    """Mark the cells of a solution notebook, in place, and return the notebook.

    The function ``f`` that the learner writes gets the ``grade_id`` ``f``, and the check below
    it ``check_f`` and a point for each star of its exercise, or one where it has none. A check
    raises in the hidden test below its line, which is how nbgrader sees that it failed.

    Raises
    ------
    RuntimeError
        When a solution stands in no function, or a hidden test comes before any solution.
    """
    stars, name = 0, ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and (heading := HEADING.search(cell.source)):
            stars = heading[0].count("★")
        elif "### BEGIN SOLUTION" in cell.source:
            name = _function(cell.source)
            cell.metadata["nbgrader"] = FRESH | {"grade_id": name, "solution": True}
        elif "### BEGIN HIDDEN TESTS" in cell.source:
            cell.metadata["nbgrader"] = _check(name, max(stars, 1))
    return notebook


def _function(source):
    """Return the name of the function in which the solution stands."""
    names = FUNCTION.findall(source.partition("### BEGIN SOLUTION")[0])
    if not names:
        raise RuntimeError(f"a solution stands in no function:\n{source}")
    return names[-1]


def _check(name, points):
    if not name:
        raise RuntimeError("a hidden test comes before any solution; it would test nothing")
    graded = {"grade_id": f"check_{name}", "grade": True, "locked": True, "points": points}
    return FRESH | graded
