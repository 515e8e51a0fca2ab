"""Working programs of compressed models, each beside a plain baseline."""

from lightcourse.applications.replies import Remembering, answer, fitting
from lightcourse.applications.summaries import central, diverse, lead, sentences, vectors, written

__all__ = [
    "Remembering",
    "answer",
    "central",
    "diverse",
    "fitting",
    "lead",
    "sentences",
    "vectors",
    "written",
]
