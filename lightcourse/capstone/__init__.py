"""The capstone: a light classifier as a folder of data, measured against a budget and its card."""

from lightcourse.capstone.budget import BUDGET, Budget, pareto_front
from lightcourse.capstone.card import claim, read_claims
from lightcourse.capstone.looking import look
from lightcourse.capstone.report import POINTS, Report, judge, measure, read_card
from lightcourse.capstone.shape import section_names
from lightcourse.capstone.submission import (
    Submission,
    load_submission,
    load_teacher,
    save_submission,
)
from lightcourse.capstone.weighing import Weighed, answers, is_teacher, weigh

__all__ = [
    "BUDGET",
    "Budget",
    "POINTS",
    "Report",
    "Submission",
    "Weighed",
    "answers",
    "claim",
    "is_teacher",
    "judge",
    "load_submission",
    "load_teacher",
    "look",
    "measure",
    "pareto_front",
    "read_card",
    "read_claims",
    "save_submission",
    "section_names",
    "weigh",
]
