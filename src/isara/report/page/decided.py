"""What a person decided about a run's rows, beside what its training knew of it."""

from isara.decisions import late_decisions
from isara.report.facts import Run


def known(run: Run) -> str:
    """Who decided, and whether the model was trained on what the decisions leave."""
    decided = [facts for facts in run.iterations if facts.decisions]
    trained = [facts for facts in decided if facts.training is not None]
    late = sum(late_decisions(run.path, facts.number, facts.accepted, facts.decisions) for facts in trained)
    if late:
        return f"by a person, {late} of them after training: not in the model"
    if trained == decided:
        return "by a person: the model was trained on what they leave"
    return "by a person, before training"
