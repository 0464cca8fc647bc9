"""The figures of a training outlive it; people see where it stands."""

from __future__ import annotations

from models.training import journal
from models.training.journal import Journal


def tell(path, steps, loss, quiet=True, total=4):
    own = Journal(path, "align", total, ("loss",), quiet)
    for step in steps:
        own("loss", step, loss + step)
        own("seconds", step, 1.0)


def test_of_a_step_that_was_done_twice_the_last_figure_stays(tmp_path):
    path = tmp_path / "new" / "figures.jsonl"
    tell(path, range(3), 1.0)
    with path.open("a") as file:
        file.write('["loss", 3, 4.')  # killed while it wrote
    tell(path, range(2, 4), 10.0)
    losses = [(step, value) for name, step, value in journal.read(path) if name == "loss"]
    assert losses == [(0, 1.0), (1, 2.0), (2, 12.0), (3, 13.0)]
    assert journal.read(tmp_path / "none") == []


def test_the_last_step_is_said_with_its_figures_and_none_where_it_is_quiet(tmp_path, capsys):
    tell(tmp_path / "a", range(4), 0.5, quiet=False)
    assert capsys.readouterr().err.splitlines()[-1].startswith("[align] step 4 of 4: loss 3.5, about 0:00 min left")
    tell(tmp_path / "b", range(4), 0.5)
    assert capsys.readouterr().err == ""
