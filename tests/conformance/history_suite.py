"""What every keeper of the fleet history must do; a test class inherits it and gives a `history` fixture."""

from __future__ import annotations

from datetime import timedelta

from fleet_visits import BEGAN, WATCHED, visit

from pipeline.fleet.history import Acceptance, History

OTHER = WATCHED.model_copy(update={"device": "board-08"})


class HistorySuite:
    """Inherit it beside a `history` fixture that gives an empty one."""

    def test_is_empty_at_first(self, history: History) -> None:
        assert history.visits(WATCHED) == ()
        assert history.accepted_at(WATCHED) is None

    def test_gives_visits_back_by_time(self, history: History) -> None:
        visits = [visit(day, 1.0 + day / 7) for day in (2, 0, 1)]
        for one in visits:
            history.add(one)
        assert history.visits(WATCHED) == (visits[1], visits[2], visits[0])
        assert history.visits(WATCHED, last=2) == (visits[2], visits[0])

    def test_a_round_visits_once(self, history: History) -> None:
        first = visit(0, 1.0)
        history.add(first)
        history.add(visit(0, 2.0))
        assert history.visits(WATCHED) == (first,)

    def test_what_is_watched_is_told_apart(self, history: History) -> None:
        anew = WATCHED.model_copy(update={"sha256": "f" * 64})
        for watched in (WATCHED, OTHER, anew):
            history.add(visit(0, 1.0, watched=watched))
        assert [one.watched for one in history.visits(OTHER)] == [OTHER]
        assert [one.watched for one in history.visits(anew)] == [anew]

    def test_the_last_acceptance_counts(self, history: History) -> None:
        for days in (3, 5, 4):
            at = BEGAN + timedelta(days=days)
            history.accept(Acceptance(watched=WATCHED, accepted_at=at, note="a new kernel"))
        assert history.accepted_at(WATCHED) == BEGAN + timedelta(days=5)
        assert history.accepted_at(OTHER) is None
