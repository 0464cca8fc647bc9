from schemas.document import DOCUMENT, text
from schemas.tables import TABLES


def test_the_contracts_in_docs_are_those_that_are_held():
    assert DOCUMENT.read_text() == text(), "run `python -m schemas.document`"


def test_every_table_and_every_check_is_there():
    sections = text().split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == [table.name for table in TABLES]
    scores = next(section for section in sections if section.startswith("scores\n"))
    assert (
        "`probs_sum_to_one` (exclusive labels)" in scores and "`probs_are_probabilities` (independent labels)" in scores
    )
