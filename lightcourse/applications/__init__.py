"""Working programs of compressed models, each beside a plain baseline."""

from lightcourse.applications.replies import Remembering, answer, fitting

__all__ = [
    "Remembering",
    "answer",
    "fitting",
]
