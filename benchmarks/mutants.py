"""Small faults planted one at a time in a copy of the project, and the tests that must see them.

    make mutants            or        python -m benchmarks.mutants [WORD ...]      only faults whose title has all words

Each fault replaces one piece of one file; then its tests run and have to fail. A fault that is not seen, or a piece that is
no longer in the code, ends the command with exit code 1. A fault that ever slipped through belongs on this list.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ROOMS = ("benchmarks", "conf", "docs", "jobs", "lake", "models", "schemas", "tests", "udfs")


@dataclass(frozen=True)
class Fault:
    """title: what goes wrong. piece -> instead, in file; tests: what pytest is asked to run, one of which must fail."""

    title: str
    file: str
    piece: str
    instead: str
    tests: str


FAULTS = (
    Fault(
        "a calibrator that is as good as the vote goes live",
        "models/calibration/worth.py",
        "self.minus_vote.high < 0",
        "self.minus_vote.high <= 0",
        "tests/models/calibration/test_worth.py",
    ),
    Fault(
        "confidences that differ by rounding are told apart",
        "models/evaluation/figures.py",
        "np.where(self.guess == NOTHING, 1.0 / self.probs.shape[1], given).round(_DIGITS)",
        "np.where(self.guess == NOTHING, 1.0 / self.probs.shape[1], given)",
        "tests/models/evaluation/test_methods.py",
    ),
    Fault(
        "the interval of few sources is that of many",
        "models/evaluation/intervals.py",
        "t.ppf((1.0 + _INSIDE) / 2, count - 1)",
        "t.ppf((1.0 + _INSIDE) / 2, 1000)",
        "tests/models/calibration/test_worth.py",
    ),
    Fault(
        "what promote takes is the newest, not the best",
        "jobs/calibrate.py",
        'run.record.results[best]["calibrator_id"])',
        "calibrator_id)",
        "tests/jobs/test_evaluate.py -k not_promoted_in_silence",
    ),
    Fault(
        "the rows of another judge are read, too",
        "jobs/steps/labelled.py",
        ' & (F.col("judge_id") == judge_id)',
        "",
        "tests/jobs/test_evaluate.py -k judged_once",
    ),
    Fault(
        "compare looks for videos without their texts",
        "jobs/compare.py",
        "scope.of_split(run, split, side.recipe)",
        "scope.of_split(run, split)",
        "tests/jobs/test_evaluate.py -k texts",
    ),
    Fault(
        "a calibrator is judged by videos that taught it",
        "models/calibration/crossfit.py",
        "fit(examples.of(examples.fold != fold)).logits",
        "fit(examples).logits",
        "tests/models/calibration/test_crossfit.py",
    ),
    Fault(
        "a video has part in the temperature that its own figure is at",
        "models/calibration/crossfit.py",
        "fit_temperature(logits[~own], examples.targets[~own], rows_nll)",
        "fit_temperature(logits, examples.targets, rows_nll)",
        "tests/models/calibration/test_crossfit.py",
    ),
    Fault(
        "videos of one source are in several folds",
        "jobs/steps/examples.py",
        "F.pmod(own, F.lit(folds))",
        'F.pmod(F.xxhash64("video_id"), F.lit(folds))',
        "tests/jobs/test_calibrate.py",
    ),
    Fault(
        "clips of one source are drawn apart",
        "models/evaluation/methods.py",
        "np.unique([case.cluster for case in cases]",
        "np.unique([case.video_id for case in cases]",
        "tests/models/evaluation/test_methods.py",
    ),
    Fault(
        "the debiased calibration error keeps what chance makes of it",
        "models/evaluation/figures.py",
        "(share - said) ** 2 - chance",
        "(share - said) ** 2",
        "tests/models/evaluation/test_evaluation.py",
    ),
    Fault(
        "all right of few sources is certain",
        "models/evaluation/intervals.py",
        "if not isclose(accuracy.low, accuracy.high, abs_tol=1e-9):",
        "if True:",
        "tests/models/evaluation/test_evaluation.py",
    ),
    Fault(
        "a name with an extension is that of files with others, too",
        "schemas/views.py",
        "({uri} = {name} OR endswith({uri}, concat('/', {name})) OR endswith({bare}, concat('/', {name})))",
        "(regexp_replace({uri}, '[.][^.]*$', '') LIKE concat('%/', regexp_replace({name}, '[.][^.]*$', '')))",
        "tests/jobs/steps/test_label_files.py",
    ),
    Fault(
        "a trace is judged again in every evaluation",
        "jobs/steps/trace_quality.py",
        'traces.join(known.select(*key), key, "left_anti")',
        "traces",
        "tests/jobs/test_evaluate.py -k judged_once",
    ),
    Fault(
        "shuffled frames are in their order",
        "models/video/frames.py",
        'if spec.show == "shuffled":',
        'if spec.show == "none":',
        "tests/models/video/test_frames.py -k shuffled",
    ),
    Fault(
        "what a witness saw elsewhere stands for a tail that was not said",
        "models/engines/witness.py",
        "if not look.tail or self.said[kept:place] != look.tail:",
        "if not look.tail:",
        "tests/models/engines/test_witness.py",
    ),
    Fault(
        "a witness sees what temperature has made of a distribution",
        "models/engines/watching.py",
        "        return False  #",
        "        return True  #",
        "tests/models/engines/test_witness.py",
    ),
    Fault(
        "labels with some weight are not told apart",
        "models/language/label_scores.py",
        "_LEAST = 1e-4",
        "_LEAST = 1e-1",
        "tests/models/language/test_label_scores.py",
    ),
    Fault(
        "what a tail ends with is taken for it",
        "models/engines/witness.py",
        "            if tuple(said[-len(tail) :]) == tail:\n",
        "            if True:\n",
        "tests/models/engines/test_witness.py",
    ),
    Fault(
        "a label ends where its answer goes on with a full stop",
        "models/language/label_scores.py",
        "        after = written.removeprefix(said)\n",
        '        after = ""\n',
        "tests/models/language/test_label_scores.py",
    ),
    Fault(
        "the prefix of the old weights answers for the new ones",
        "models/engines/vllm.py",
        "            if not self._engine.reset_prefix_cache():\n",
        "            if False:\n",
        "tests/models/engines/test_engines.py -k weights_take_effect",
    ),
    Fault(
        "a rare label is believed though every trace that named it was wrong",
        "models/calibration/rare.py",
        "yes[place] + refuted[place]",
        "yes[place]",
        "tests/models/calibration/test_rare.py",
    ),
    Fault(
        "a text that changed back stays with what was decided in between",
        "schemas/views.py",
        "greatest(s.scored_at, i.noted_at)",
        "s.scored_at",
        "tests/lake/test_catalog.py -k changes_back",
    ),
    Fault(
        "a line break of another script forges a field of text",
        "jobs/steps/inputs.py",
        r'r"(?U)[\s\p{Cc}]+"',
        r'r"\s+"',
        "tests/jobs/steps/test_inputs.py",
    ),
    Fault(
        "a Ctrl-C that Python swallowed is lost",
        "jobs/runtime/stop.py",
        "    if _pressed.is_set():\n",
        "    if False:\n",
        "tests/jobs/runtime/test_stop.py",
    ),
    Fault(
        "a number in the key of a refused row kills its task",
        "lake/write.py",
        "str(_plain(row[name]))",
        "_plain(row[name])",
        "tests/lake/test_quarantine.py",
    ),
    Fault(
        "a label's look begins behind the tag that it is glued to",
        "models/language/label_scores.py",
        "kept, place = tokens_before(self._tokenizer, ids, text, opening.tag)",
        "kept, place = tokens_before(self._tokenizer, ids, text, opening.start)",
        "tests/models/language/test_label_scores.py",
    ),
    Fault(
        "labels that begin alike are told apart by their first token alone",
        "models/language/label_scores.py",
        "                    if len(child.labels) > 1 and total >= least:\n",
        "                    if False:\n",
        "tests/models/language/test_label_scores.py",
    ),
    Fault(
        "what was cut is ok where it holds an answer",
        "models/language/grammar.py",
        "status=TOO_LONG if cut else PARSE_ERROR if named is None else OK",
        "status=OK if named is not None else TOO_LONG if cut else PARSE_ERROR",
        "tests/models/language/test_grammar.py",
    ),
    Fault(
        "a stranger's text may end the turn",
        "models/language/prompts.py",
        'text = text.replace(token, f"{token[0]} {token[1:]}")',
        "text = str(text)",
        "tests/models/language/test_prompts.py",
    ),
    Fault(
        "a teacher that knew the label is learnt from",
        "jobs/steps/teacher_filter.py",
        "leak.isNotNull()",
        "F.lit(False)",
        "tests/jobs/steps/test_teacher_filter.py",
    ),
    Fault(
        "traces of a video without a label agree where only some can be read",
        "jobs/steps/teacher_filter.py",
        'F.col("_usable") == F.col("_count")',
        "F.lit(True)",
        "tests/jobs/steps/test_teacher_filter.py",
    ),
    Fault(
        "what a teacher said is refused again in every run",
        "jobs/steps/teacher_filter.py",
        '.otherwise(F.col("_noted"))',
        "",
        "tests/jobs/steps/test_teacher_filter.py",
    ),
    Fault(
        "a corrected file of traces is the teacher that it was",
        "jobs/steps/teachers.py",
        "        version=version,\n",
        "",
        "tests/jobs/test_align.py -k newest",
    ),
    Fault(
        "the first teacher is learnt from for ever",
        "jobs/steps/teachers.py",
        'F.desc("created_at")',
        '"created_at"',
        "tests/jobs/test_align.py -k newest",
    ),
    Fault(
        "a trace that a corrected label makes wrong is taught",
        "jobs/align.py",
        '.where("truth IS NULL OR labels = truth")',
        '.where("truth IS NULL OR labels IS NOT NULL")',
        "tests/jobs/test_align.py -k as_it_is_now",
    ),
    Fault(
        "a video whose text changed counts as done",
        "jobs/steps/scope.py",
        'KEY = ("video_id", "input_digest")',
        'KEY = ("video_id",)',
        "tests/jobs/steps/test_rollouts.py tests/jobs/steps/test_scope.py",
    ),
    Fault(
        "seeds of the next base are those of this one, shifted",
        "models/engines/asking.py",
        'int(hashlib.sha256(f"{seed_base}:{video_id}".encode()).hexdigest()[:12], 16) + rollout_index',
        "seed_base + int(hashlib.sha256(video_id.encode()).hexdigest()[:12], 16) + rollout_index",
        "tests/models/engines/test_rollouts.py",
    ),
    Fault(
        "a nested field at its neutral value enters a recipe",
        "models/identity.py",
        "if name not in neutral or field != neutral[name]",
        "if True",
        "tests/models/test_identity.py",
    ),
    Fault(
        "a folder's own size of frames is obeyed",
        "models/video/processors.py",
        '"do_resize": False',
        '"do_resize": True',
        "tests/models/engines/test_folder.py -k neutral",
    ),
    Fault(
        "text without a clip stands where the last clip put it",
        "models/engines/transformers.py",
        "self._model.model.rope_deltas = None",
        "pass",
        "tests/models/engines/test_questions.py -k codes",
    ),
    Fault(
        "codes beyond the first pass are forgotten",
        "models/engines/vllm.py",
        "for at in range(0, len(look.ids), _IDS_AT_ONCE)",
        "for at in range(0, min(len(look.ids), _IDS_AT_ONCE), _IDS_AT_ONCE)",
        "tests/models/engines/test_questions.py -k codes",
    ),
    Fault(
        "the calibrator's mean is not subtracted when scoring",
        "models/calibration/linear.py",
        "((features - self.mean) / self.scale) @",
        "(features / self.scale) @",
        "tests/models/calibration/test_linear.py",
    ),
    Fault(
        "a video weighs as much as was said of it",
        "models/evaluation/methods.py",
        "weight = 1.0 / rows[found.case]",
        "weight = 1.0 * rows[found.case]",
        "tests/models/evaluation/test_methods.py",
    ),
    Fault(
        "a failed trace speaks by its label probabilities",
        "models/calibration/features.py",
        'if trace["status"] != "ok" or any(',
        "if any(",
        "tests/models/calibration/test_features.py",
    ),
    Fault(
        "the refusals of a run's second wave count as noted by its first",
        "lake/waves.py",
        'f"{wave.id}/{QUARANTINE.name}/{name}"',
        'f"{wave.run_id}/{QUARANTINE.name}/{name}"',
        "tests/lake/test_waves.py -k two_refusing",
    ),
    Fault(
        "a wave's removal begins with its data",
        "lake/staging.py",
        '        storage.delete(self.path("manifest.json"))\n',
        "",
        "tests/lake/test_waves.py -k inside_the_removal",
    ),
    Fault(
        "time may run back in an AVI",
        "models/video/container.py",
        "now = time if now is None else max(now, time)",
        "now = time",
        "tests/models/video/test_frames.py",
    ),
    Fault(
        "an infinite loss is learnt from",
        "models/training/trainer.py",
        "if not math.isfinite(loss):",
        "if math.isnan(loss):",
        "tests/models/training/test_trainer.py",
    ),
    Fault(
        "a commit tries again by itself behind an entry that nobody looked at",
        "lake/commit.py",
        "                max_commit_retries=0,\n",
        "",
        "tests/lake/test_commit.py -k 'rival and not s3'",
    ),
    Fault(
        "creating a table tries again behind the first commit of another writer",
        "lake/table.py",
        "commit_properties=CommitProperties(max_commit_retries=0)",
        "commit_properties=None",
        "tests/lake/test_table.py -k several",
    ),
    Fault(
        "a mark is left without its time",
        "lake/commit.py",
        "Transaction(mark, version, now_ms)",
        "Transaction(mark, version)",
        "tests/lake/test_table.py -k marks",
    ),
    Fault(
        "a run behind a fence commits",
        "lake/commit.py",
        "if snapshot.transaction_version(fence_of(run_id)):\n        raise",
        "if False:\n        raise",
        "tests/lake/test_commit.py -k fence",
    ),
    Fault(
        "the entry right after the look is not looked at",
        "lake/log.py",
        "for entry in range(version + 1, snapshot.version() + 1):",
        "for entry in range(version + 2, snapshot.version() + 1):",
        "tests/lake/test_commit.py -k 'known_to_be_missing and not s3'",
    ),
    Fault(
        "all rows of a file with a known key are dropped",
        "lake/commit.py",
        "elif len(known[file.name]) < file.rows:",
        "elif False:",
        "tests/lake/test_commit.py -k 'known_key or left_out and not s3'",
    ),
    Fault(
        "a sealed wave is settled although its run lives",
        "lake/recovery.py",
        "(runs.living if lease.alive(record, silence_seconds) else runs.dead)",
        "runs.dead",
        "tests/lake/test_waves.py -k alive",
    ),
    Fault(
        "a run that was taken for dead publishes",
        "lake/waves.py",
        "if not self._lease.held():",
        "if False:",
        "tests/lake/test_waves.py -k taken_for_dead",
    ),
    Fault(
        "the size of staged files is not looked at",
        "lake/waves.py",
        "if size != file.size:",
        "if False:",
        "tests/lake/test_damage.py -k cut_short",
    ),
    Fault(
        "files with other rows than were staged are published",
        "lake/waves.py",
        "if found.rows != output.kept:",
        "if False:",
        "tests/lake/test_damage.py -k other_rows",
    ),
    Fault(
        "a predicate that is NULL lets a row pass",
        "lake/expectations.py",
        'F.coalesce(F.expr(f"({check.sql})"), F.lit(False))',
        'F.coalesce(F.expr(f"({check.sql})"), F.lit(True))',
        "tests/lake/test_audit.py",
    ),
    Fault(
        "which row of a key is kept depends on its file",
        "lake/audit.py",
        '.orderBy(F.xxhash64(*values), "file_name")',
        '.orderBy("file_name")',
        "tests/lake/test_audit.py -k always_the_same",
    ),
    Fault(
        "a promotion empties current_scores",
        "schemas/views.py",
        "FROM promotions p\n",
        "FROM live p\n",
        "tests/lake/test_catalog.py",
    ),
    Fault(
        "of two compactions at once both land",
        "lake/compact.py",
        "moves = [move for move in moves if move.old.keys() <= named]",
        "moves = list(moves)",
        "tests/lake/test_compact.py -k two_at_once",
    ),
    Fault(
        "a file cut short after its audit is published",
        "lake/waves.py",
        "    for found in (audited or {}).values():\n        check_files(",
        "    for found in ():\n        check_files(",
        "tests/lake/test_damage.py -k after_its_audit",
    ),
    Fault(
        "an expectation that contradicts its predicate goes unnoticed",
        "lake/audit.py",
        'if result["success"] != agreed[result["check"]]:',
        "if False:",
        "tests/lake/test_audit.py -k two_forms",
    ),
    Fault(
        "maintain removes the files of living runs",
        "lake/maintenance.py",
        'ended = {run for run in set(owners.values()) - {""} if not storage.exists(run_folder(root, run))}',
        "ended = set(owners.values())",
        "tests/lake/test_maintenance.py",
    ),
    Fault(
        "waves take the newest videos first",
        "jobs/steps/scope.py",
        'repartitionByRange(number, "ingested_at"',
        'repartitionByRange(number, F.desc("ingested_at")',
        "tests/jobs/steps/test_scope.py",
    ),
    Fault(
        "a night that left something says that it came to the end",
        "jobs/nightly.py",
        "[day.isoformat() for day in left]",
        "[]",
        "tests/jobs/test_nightly.py -k leaves",
    ),
    Fault(
        "a night does not note how far it came",
        "lake/registry.py",
        '"videos_version": videos_version,',
        '"videos_version": 0,',
        "tests/jobs/test_nightly.py -k leaves",
    ),
    Fault(
        "what a rival brought between two waves is made again",
        "jobs/steps/rollouts.py",
        "        looked_at = run.lake.version(TRACES)\n",
        "        looked_at = run.lake.version(TRACES)\n        todo = replace(todo, planned_at=looked_at)\n",
        "tests/jobs/test_rivals.py",
    ),
    Fault(
        "a trace refused beyond those asked for takes its video out",
        "jobs/steps/serving.py",
        "(version == recipe.id) & (rollout_index < k)",
        "(version == recipe.id)",
        "tests/jobs/steps/test_serving.py",
    ),
    Fault(
        "what is scored and not decided is not new",
        "jobs/steps/news.py",
        "came.within(scorers.decided_by_promoted(run))",
        "came.within(run.lake.read(SCORES))",
        "tests/jobs/test_nightly.py -k died_between",
    ),
    Fault(
        "what a candidate decided is not new",
        "jobs/steps/scorers.py",
        ".where(reduce(or_, pairs, F.lit(False)))",
        "",
        "tests/jobs/test_nightly.py -k never_live",
    ),
    Fault(
        "a content that an earlier wave of the run brought comes in again",
        "lake/commit.py",
        "if came is not None and table.key_is_local:",
        "if came is not None:",
        "tests/jobs/test_ingest.py -k neighbours",
    ),
    Fault(
        "files that an inventory knows no etag of are left out",
        "jobs/steps/files.py",
        'rows.where("etag IS NULL")',
        'rows.where("false")',
        "tests/jobs/test_ingest.py -k as_good_as",
    ),
    Fault(
        "maintain removes what a slow run named just before its fence",
        "lake/maintenance.py",
        "for name in lost if name not in named])",
        "for name in lost])",
        "tests/lake/test_maintenance.py -k 'between and not s3'",
    ),
    Fault(
        "what an id stands for is noted again once its mark has expired",
        "jobs/runtime/run.py",
        ", land=append)",
        ")",
        "tests/jobs/runtime/test_run.py -k stands_for",
    ),
    Fault(
        "one wave that cannot be settled stops every run",
        "lake/recovery.py",
        "    except Exception as error:",
        "    except MemoryError as error:",
        "tests/lake/test_damage.py -k cannot_be_settled",
    ),
    Fault(
        "a clip of ten frames a millisecond holds its wave",
        "models/video/frames.py",
        "fps if fps <= MOST_FPS else None",
        "fps",
        "tests/models/video/test_frames.py -k no_camera",
    ),
    Fault(
        "what follows a clip begins after its height or width, though time went further",
        "models/language/positions.py",
        "start = int(parts[-1].max()) + 1",
        "start = int(parts[-1][1:].max()) + 1",
        "tests/models/language/test_positions.py",
    ),
    Fault(
        "the reference engine keeps the positions of transformers",
        "models/engines/transformers.py",
        "        use_serving_positions(model)\n",
        "",
        "tests/models/engines/test_families.py -k agree",
    ),
    Fault(
        "temperatures of the ablation are fitted on the test",
        "benchmarks/ablation.py",
        "made.temperature(made.of_traces(fitting), fitting_truth)",
        "made.temperature(made.of_traces(test), truth)",
        "tests/benchmarks/test_ablation.py",
    ),
    Fault(
        "what is seen gains by what is made of it",
        "models/training/credit.py",
        "[seen] * first + [argued]",
        "[argued] * first + [seen]",
        "tests/models/training/test_credit.py",
    ),
    Fault(
        "a sequence is shown its neighbour's clip",
        "models/training/seeing.py",
        "tuple(found.pooler_output[number] for number in numbers)",
        "tuple(found.pooler_output[number] for number in sorted(numbers))",
        "tests/models/training/test_seeing.py",
    ),
    Fault(
        "completions of a batch do not begin together",
        "models/training/batches.py",
        'True, filler, "left")',
        'True, filler, "right")',
        "tests/models/training/test_seeing.py",
    ),
    Fault(
        "a model whose registration was cut short never gets its name",
        "jobs/steps/training.py",
        "models.save(run.task, model, known, ids, alias)",
        "models.manifest(run.task, model_id)",
        "tests/jobs/test_refine.py -k registers_it_once",
    ),
    Fault(
        "an outage of the store is trained through",
        "models/training/clips.py",
        "if self._silent == _ENOUGH:",
        "if self._silent > 10**9:",
        "tests/models/training/test_training_clips.py",
    ),
    Fault(
        "petastorm asks last whether all work was handed out",
        "models/training/petastorm_compat.py",
        "self._ventilator.completed() and super().all_workers_done()",
        "super().all_workers_done() and self._ventilator.completed()",
        "tests/models/training/test_readers.py -k own_pool",
    ),
    Fault(
        "an epoch of petastorm that lost rows goes on",
        "models/training/petastorm_reader.py",
        "            self._check(times)\n",
        "",
        "tests/models/training/test_readers.py -k own_pool",
    ),
    Fault(
        "shards are cut out of a batch, and become unequal",
        "models/training/reading.py",
        "begin + (self._shard - begin) % self._shards",
        "begin + self._shard",
        "tests/models/training/test_readers.py -k two_shards",
    ),
    Fault(
        "a lesson that Spark wrote and that did not come back is not missed",
        "jobs/steps/training.py",
        'if len(found) != written.get["rows"]:',
        'if len(found) > written.get["rows"]:',
        "tests/jobs/steps/test_lessons.py -k come_back",
    ),
)


def plant(fault: Fault, tree: Path) -> bool:
    """Put a fault into the tree; False where the piece is not there exactly once."""
    path = tree / fault.file
    text = path.read_text()
    if text.count(fault.piece) != 1:
        return False
    path.write_text(text.replace(fault.piece, fault.instead))
    return True


def seen(fault: Fault, tree: Path) -> bool:
    """Whether the tests fail. A run that collects nothing counts as blind."""
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {fault.tests}"
    return subprocess.run(command, shell=True, cwd=tree, capture_output=True, timeout=1200).returncode == 1


def copy_to(tree: Path) -> None:
    """The project as it is in the working tree; what is built or fetched is linked."""
    for room in ROOMS:
        shutil.copytree(PROJECT / room, tree / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "Makefile", "setup.py"):
        shutil.copy(PROJECT / file, tree / file)
    (tree / ".jars").symlink_to(PROJECT / ".jars")


def main(words: list[str]) -> int:
    chosen = [fault for fault in FAULTS if all(word in fault.title for word in words)]
    missed = 0
    for fault in chosen:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "project")
            tree.mkdir()
            copy_to(tree)
            verdict = "the code has changed" if not plant(fault, tree) else "seen" if seen(fault, tree) else "NOT SEEN"
        missed += verdict != "seen"
        print(f"{verdict:<21} {time.monotonic() - began:5.0f} s  {fault.title} ({fault.tests})", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults were seen")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
