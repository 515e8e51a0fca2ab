"""nbgrader's settings for this course; nbgrader.md tells where a copy of this file goes."""

from nbconvert.preprocessors import TagRemovePreprocessor

# nbgrader hands it in.
c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "lightcourse"
# A solution's explanations are whole cells, with this tag; an exercise has none of them.
c.GenerateAssignment.preprocessors.insert(0, TagRemovePreprocessor)
c.TagRemovePreprocessor.enabled = True
c.TagRemovePreprocessor.remove_cell_tags = {"solution"}
c.ClearSolutions.code_stub = {"python": "...  # your code here"}
# Seconds for a cell. nbgrader gives 30, and a cell that trains on a slow machine takes longer.
c.Execute.timeout = 300
