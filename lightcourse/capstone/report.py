"""What is found of a submission: against the budget, and against what its card claims."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lightcourse import data, metrics
from lightcourse.capstone.budget import BUDGET, Budget
from lightcourse.capstone.card import read_claims
from lightcourse.capstone.looking import CARD, Files, look
from lightcourse.capstone.submission import Submission, load_teacher
from lightcourse.capstone.weighing import ROUNDS, TIMED, Weighed, answers, weigh

POINTS = ("bytes", "time", "quality", "card")
# A card's time may have been measured on another machine, with other caches.
SLACK = 1.5
# A card's accuracy was counted on other rows: once in a hundred honest ones is beyond this.
LEVEL = 0.99


@dataclass(frozen=True)
class Report:
    """A submission's measurements and its points.

    Parameters
    ----------
    refused : str
        Why it was not measured; empty where it was.
    bytes : int
        Of all files but the card.
    rows : int
        Texts that were answered.
    accuracy, macro_f1, teacher_accuracy : float
    gap : PairedGap, optional
        The submission's accuracy minus the teacher's, on the same rows.
    latency, teacher_latency : Latency, optional
        Of one sentence.
    letters : (int, int)
        Of the sentences that were timed.
    sections : dict of str to Share
        Accuracy by the label of the row.
    claims : dict of str to float
        Of the card; empty where there is none.
    points : dict of str to bool
        bytes, time, quality: within the budget; card: there, and claiming no more than was found.
    remarks : list of str
        What fell short, in sentences.
    """

    refused: str = ""
    bytes: int = 0
    rows: int = 0
    accuracy: float = 0.0
    macro_f1: float = 0.0
    teacher_accuracy: float = 0.0
    gap: metrics.PairedGap | None = None
    latency: metrics.Latency | None = None
    teacher_latency: metrics.Latency | None = None
    letters: tuple[int, int] = (0, 0)
    sections: dict = field(default_factory=dict)
    claims: dict = field(default_factory=dict)
    points: dict = field(default_factory=lambda: dict.fromkeys(POINTS, False))
    remarks: list = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median time of a sentence."""
        return self.latency.median

    @property
    def teacher_seconds(self) -> float:
        """The teacher's median time of a sentence, in turns with the submission."""
        return self.teacher_latency.median

    @property
    def share_of_time(self) -> float:
        """The first divided by the second."""
        return self.seconds / self.teacher_seconds

    @property
    def score(self) -> int:
        """How many points there are."""
        return sum(self.points.values())

    def __str__(self):
        if self.refused:
            return f"refused: {self.refused}"
        low, high = self.letters
        found = {
            "bytes": f"{self.bytes:,} bytes",
            "time": f"{self.seconds * 1e3:.2f} ms a sentence of {low} to {high} letters, "
            f"{self.share_of_time:.2f} of the teacher's {self.teacher_seconds * 1e3:.2f} ms",
            "quality": f"accuracy {self.accuracy:.3f}, {self.gap} beside the teacher's "
            f"{self.teacher_accuracy:.3f}, macro-F1 {self.macro_f1:.3f}, {self.rows:,} rows",
            "card": "the card claims no more" if self.points["card"] else "the card",
        }
        lines = [f"{'✓' if self.points[name] else '✗'} {found[name]}" for name in POINTS]
        return "\n".join([*lines, *(f"  {remark}" for remark in self.remarks)])


def read_card(folder: Path, files: Files) -> tuple[dict[str, float], str]:
    """Return a submission's claims, and why there are none.

    Raises
    ------
    ValueError
        When the card claims another number of bytes than there are: that is counted, not
        measured, and nobody errs by chance.
    """
    if CARD not in files.sizes:
        return {}, f"there is no {CARD}; capstone.claim writes it"
    try:
        claims = read_claims((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        return {}, str(error)
    if claims["bytes"] != files.bytes:
        raise ValueError(
            f"{CARD} claims {claims['bytes']:,.0f} bytes, and there are {files.bytes:,}"
        )
    return claims, ""


def judge(
    files: Files,
    claims: dict[str, float],
    problem: str,
    weighed: Weighed,
    teacher: list[int],
    rows: tuple[list[int], tuple[str, ...]],
    budget: Budget = BUDGET,
) -> Report:
    """Return the report of a submission that was weighed.

    Parameters
    ----------
    files : Files
    claims, problem
        As :func:`read_card` returns them.
    weighed : Weighed
    teacher : list of int
        Its answers to the same texts.
    rows : (list of int, tuple of str)
        The right answers, and the names of all classes.
    budget : Budget
    """
    labels, names = rows
    own = weighed.predictions
    found = Report(
        bytes=files.bytes,
        rows=len(labels),
        accuracy=metrics.accuracy(own, labels),
        macro_f1=metrics.macro_f1(own, labels),
        teacher_accuracy=metrics.accuracy(teacher, labels),
        gap=metrics.paired_gap(teacher, own, labels),
        latency=_of_one(weighed.latency),
        teacher_latency=_of_one(weighed.teacher_latency),
        letters=weighed.letters,
        sections=metrics.accuracy_by_group(own, labels, [names[label] for label in labels]),
        claims=claims,
    )
    within = {
        "bytes": found.bytes <= budget.bytes,
        "time": found.share_of_time <= budget.share_of_time,
        "quality": found.gap.gap >= -budget.points_below / 100 - 1e-9,
    }
    wrong = [problem] if problem else list(_overclaims(found))
    return replace(found, points=within | {"card": not wrong}, remarks=wrong)


def _of_one(latency):
    """Return the time of one sentence out of that of all."""
    return replace(latency, median=latency.median / TIMED, spread=latency.spread / TIMED)


def _overclaims(found):
    """Yield a sentence for each claim that goes beyond what measuring can err by."""
    right = round(found.accuracy * found.rows)
    _, high = metrics.wilson_interval(right, found.rows, LEVEL)
    if found.claims["accuracy"] > high:
        yield (
            f"the card claims an accuracy of {found.claims['accuracy']:.3f}; {found.accuracy:.3f} "
            f"was measured, and chance on {found.rows:,} rows reaches to {high:.3f}"
        )
    if found.claims["share_of_time"] * SLACK < found.share_of_time:
        yield (
            f"the card claims {found.claims['share_of_time']:.3f} of the teacher's time; "
            f"{found.share_of_time:.3f} was measured, more than {SLACK} times that"
        )


def measure(
    folder: str | Path,
    budget: Budget = BUDGET,
    rows=None,
    teacher: Submission | None = None,
    rounds: int = ROUNDS,
) -> Report:
    """Measure one's own submission as ``lightcourse grade --capstone`` does, in this process.

    Parameters
    ----------
    folder : path
        As :func:`save_submission` left it, with or without a card.
    budget : Budget
    rows : datasets.Dataset, optional
        With columns text and label; by default the Factbook's test split. A grader may have
        others.
    teacher : Submission, optional
        By default :func:`load_teacher`'s.
    rounds : int
        Timed rounds.

    Returns
    -------
    Report
        One that was refused says why, and has nothing else.
    """
    rows = data.load_factbook()["test"] if rows is None else rows
    teacher, texts = teacher or load_teacher(), list(rows["text"])
    try:
        files = look(Path(folder))
        claims, problem = read_card(Path(folder), files)
        weighed = weigh(folder, texts, teacher, rounds)
    except ValueError as error:
        return Report(refused=str(error))
    labels = list(rows["label"]), teacher.labels
    return judge(files, claims, problem, weighed, answers(teacher, texts), labels, budget)
