"""Two readers of the same lessons: the same rows for the same seed, step and shard, none lost in any epoch; or an error."""

from __future__ import annotations

import threading
import time
from collections import Counter
from importlib.metadata import PackageNotFoundError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.training import petastorm_compat, reading
from models.training.lessons import COLUMNS, table_of, write
from models.training.parquet_lessons import NUMBER, dataset_of, materialise
from models.training.petastorm_compat import ThreadPool
from models.training.reading import PETASTORM, Epochs, LostRows, everything, missing, open_reader

ROWS, GROUPS = 530, 9
SAID = (None, "", "None", "a NUL at its end\0", 'naïve 影片\n"quoted", commas', "long " * 400)
LABELS = (None, [], ["a"], ["a", "b", "c"], ["", "None"])
EVERY = {f"{n:04}": 1 for n in range(ROWS)}
both = pytest.mark.parametrize("kind", ["arrow", "petastorm"])


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """A file of lessons with its dataset of nine row groups."""
    rows = [
        {
            "video_id": f"{n:04}",
            "uri": f"/videos/{n}",
            "said": SAID[n % len(SAID)],
            "text": None if n % 7 == 0 else f"text {n}",
            "labels": LABELS[n % len(LABELS)],
        }
        for n in range(ROWS)
    ]
    path = write(tmp_path_factory.mktemp("lessons"), [pa.RecordBatch.from_pylist(rows, COLUMNS)])
    assert len(list(materialise(path, row_group_bytes=1).iterdir())) == GROUPS
    return path


@pytest.fixture
def own(lessons, tmp_path):
    """The same, to be damaged."""
    (tmp_path / lessons.name).write_bytes(lessons.read_bytes())
    materialise(tmp_path / lessons.name, row_group_bytes=1)
    return tmp_path / lessons.name


def epoch(epochs: Epochs, number: int) -> list[list[str]]:
    """Video ids of one epoch, step by step."""
    steps = range(number * len(epochs), (number + 1) * len(epochs))
    return [[lesson.video_id for lesson in epochs.due(step)] for step in steps]


def flat(steps: list[list[str]]) -> list[str]:
    return [video_id for step in steps for video_id in step]


@both
def test_200_epochs_lose_no_row(lessons, kind):
    epochs = Epochs(open_reader(kind, lessons), 60, seed=0)
    orders = [flat(epoch(epochs, number)) for number in range(200)]
    assert all(Counter(order) == EVERY for order in orders)
    assert len({tuple(order) for order in orders}) == 200


@both
@pytest.mark.parametrize("batch", [7, 8, ROWS])
def test_two_shards_have_every_row_once_and_as_many_steps(lessons, kind, batch):
    shards = [Epochs(open_reader(kind, lessons), batch, 0, shard, 2) for shard in range(2)]
    alone = Epochs(open_reader(kind, lessons), batch, 0)
    for number in range(3):
        first, second = (epoch(shard, number) for shard in shards)
        assert len(first) == len(second) == len(alone) == -(-ROWS // batch)
        assert Counter(flat(first) + flat(second)) == EVERY and len(flat(first)) == len(flat(second)) == ROWS // 2
        for one, other, together in zip(first, second, epoch(alone, number), strict=True):
            assert sorted(one + other) == sorted(together) and abs(len(one) - len(other)) <= 1


def test_a_shard_that_an_epochs_last_step_has_nothing_for_takes_part_in_it(lessons):
    """529 are dealt out before the last step: it has one row, the second shard's."""
    shards = [Epochs(open_reader("arrow", lessons), 23, 0, shard, 2) for shard in range(2)]
    assert [len(shard.due(23)) for shard in shards] == [0, 1]


@pytest.mark.parametrize(("seed", "shard", "shards"), [(0, 0, 1), (3, 1, 2), (3, 2, 3)])
def test_both_readers_give_the_same_rows_at_any_step(lessons, seed, shard, shards):
    arrow, petastorm = (Epochs(open_reader(kind, lessons), 24, seed, shard, shards) for kind in ("arrow", "petastorm"))
    for step in (0, 1, 21, 23, 70, 5):  # of a run that goes on, too
        assert arrow.due(step) == petastorm.due(step) != []
    assert Epochs(open_reader("petastorm", lessons), 24, seed + 1, shard, shards).due(0) != petastorm.due(0)


def test_texts_nulls_and_lists_of_any_length_come_through(lessons, capfd):
    rows = pa.concat_tables(petastorm_compat.batches(sorted(dataset_of(lessons).iterdir())))
    assert rows.drop_columns([NUMBER]).to_pylist() == table_of(lessons).to_pylist()
    assert rows[NUMBER].to_pylist() == list(range(ROWS))
    arrow, petastorm = (everything(open_reader(kind, lessons)) for kind in ("arrow", "petastorm"))
    assert [arrow[n] for n in range(ROWS)] == [petastorm[n] for n in range(ROWS)]
    assert list(arrow.ids()) == list(petastorm.ids()) == list(EVERY)
    assert {arrow[n].said for n in range(ROWS)} == {said or "" for said in SAID}
    assert capfd.readouterr().out == ""  # where a command's last line is a document


@both
def test_a_number_that_was_not_asked_for_is_no_row(lessons, kind):
    with pytest.raises(IndexError):
        everything(open_reader(kind, lessons))[ROWS]
    half = open_reader("petastorm", lessons).read(range(0, ROWS, 2))
    assert half[2].video_id == "0002" and len(half) == ROWS // 2
    with pytest.raises(IndexError):
        half[3]


class Held(ThreadPool):
    """petastorm's pool; its last work is handed out between its two questions, or after `patience` seconds unasked."""

    patience = 0.2

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = threading.Event()

    def ventilate(self, *args, **kwargs):
        if self._ventilated_items == GROUPS - 1:
            self.asked.wait(self.patience)
        super().ventilate(*args, **kwargs)

    def all_workers_done(self):
        done = super().all_workers_done()
        if done and self._ventilated_items == GROUPS - 1:
            self.asked.set()
            while not self._ventilator.completed():
                time.sleep(0.001)
        return done


class HeldWhole(petastorm_compat.WholePool, Held):
    """Ours under the same pressure."""


def test_petastorms_own_pool_loses_rows_and_that_is_an_error(lessons, monkeypatch):
    reader = open_reader("petastorm", lessons)
    monkeypatch.setattr(petastorm_compat, "_THREADS", 1)
    monkeypatch.setattr(petastorm_compat.reader, "ThreadPool", HeldWhole)
    assert Counter(everything(reader).ids()) == EVERY
    monkeypatch.setattr(petastorm_compat.reader, "ThreadPool", Held)
    monkeypatch.setattr(Held, "patience", 60)
    with pytest.raises(
        LostRows, match=rf"expected {ROWS} rows in an epoch, found \d+, \d+ missing \(\d+, .*reader: arrow"
    ):
        everything(reader)


def without(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def shorter(path):
    rows = pq.read_table(path)
    pq.write_table(rows.slice(0, rows.num_rows - 3), path)


def another(path):
    path.write_bytes(path.with_name("000000.parquet").read_bytes())


def without_labels(path):
    pq.write_table(pq.read_table(path).drop_columns(["labels"]), path)


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (without, "No such file"),
        (cut, "Parquet"),
        (shorter, rf"expected {ROWS} rows in an epoch, found 527, 3 missing \(445, 446, 447\)"),
        (another, r"64 missing \(384, 385, .*\) and 64 there more than once \(0, 1, 2, 3, 4 \.\.\.\)"),
        (without_labels, "labels"),
    ],
)
def test_what_befalls_a_row_group_between_footer_and_epoch_is_an_error(own, damage, found):
    epochs = Epochs(open_reader("petastorm", own), 60, seed=0)
    assert Counter(flat(epoch(epochs, 0))) == EVERY
    damage(dataset_of(own) / "000006.parquet")
    with pytest.raises(LostRows, match=rf"{found}.*: the same command writes the dataset anew"):
        epochs.due(len(epochs))
    assert [path.suffix for path in dataset_of(own).iterdir() if path.suffix != ".parquet"] == []


@pytest.mark.parametrize(
    ("damage", "found"), [(without, f"expected {ROWS} rows by the footers of its files, found 466"), (cut, "Parquet")]
)
def test_a_dataset_that_is_not_whole_is_not_begun_with(own, damage, found):
    damage(dataset_of(own) / "000006.parquet")
    with pytest.raises(LostRows, match=found):
        open_reader("petastorm", own)


def test_a_dataset_takes_the_place_of_the_one_before_in_files_of_bounded_size(own):
    other = write(own.parent, [table_of(own).slice(0, 300).combine_chunks().to_batches()[0]])
    made = materialise(other, row_group_bytes=40_000)
    assert [path.name for path in own.parent.iterdir() if path.is_dir()] == [made.name]
    footers = [pq.read_metadata(path) for path in made.iterdir()]
    assert all(footer.num_row_groups == 1 for footer in footers) and len(footers) > 2
    assert all(footer.row_group(0).total_byte_size < 80_000 for footer in footers)


def test_a_reader_that_is_not_installed_is_told_with_what_to_do(monkeypatch):
    assert missing("arrow") == missing("petastorm") == ""

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(reading, "version", version)
    assert missing("arrow") == ""
    assert f"expected petastorm {PETASTORM}, found none: `uv pip install" in missing("petastorm")
    monkeypatch.setattr(reading, "version", lambda name: "0.12.1")
    assert "found 0.12.1" in missing("petastorm")


def test_no_rows_are_no_epochs(tmp_path):
    with pytest.raises(ValueError, match="no examples"):
        Epochs(open_reader("arrow", write(tmp_path, [])), 4, 0)
