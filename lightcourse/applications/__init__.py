"""Working programs of compressed models, each beside a plain baseline."""

from lightcourse.applications.fusion import EarlyFusion, late_fusion
from lightcourse.applications.recommendation import (
    coverage,
    factorize,
    leave_last_out,
    popularity,
    recommend,
    tail_share,
)

__all__ = [
    "EarlyFusion",
    "coverage",
    "factorize",
    "late_fusion",
    "leave_last_out",
    "popularity",
    "recommend",
    "tail_share",
]
