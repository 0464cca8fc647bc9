"""Settings: every file loads, every mistake is named with where it stands, all of them at once."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
import yaml

from conf.sections import CONF
from conf.settings import SettingsError, load, origins

SITES = ("handwriting.yaml", "kinetics.yaml", "local.yaml", "multihateclip.yaml", "prod.yaml", "smarthome.yaml")
TASKS = ("labels/handwriting.yaml", "labels/kinetics.yaml", "labels/multihateclip.yaml", "labels/smarthome.yaml")


def refused(*overrides: str, conf: str | None = None) -> list[str]:
    """The lines with which these settings are refused."""
    with pytest.raises(SettingsError) as caught:
        load(conf, overrides)
    return str(caught.value).splitlines()


@pytest.fixture
def site(tmp_path):
    """site(text) -> path of a site's file with that text."""

    def write(text: str) -> str:
        path = tmp_path / "site.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_no_file_under_conf_is_forgotten_by_these_tests():
    found = {str(path.relative_to(CONF)) for pattern in ("*.yaml", "*.yml") for path in CONF.rglob(pattern)}
    assert found == {"base.yaml", *SITES, *TASKS}


@pytest.mark.parametrize("name", SITES)
def test_every_site_loads(name):
    wanted = yaml.safe_load((CONF / name).read_text())
    settings = load(str(CONF / name)).model_dump()
    for section, values in wanted.items():
        for key, value in values.items() if isinstance(values, dict) else ():
            if not isinstance(value, dict):
                found = settings[section][key]
                assert (list(found) if isinstance(found, tuple) else found) == value


def test_where_a_setting_comes_from_is_known(site):
    path = site("rollout: {n: 2, texts: {title: 20}}")
    found = origins(path, ["rollout.n=3", "engine.gpus=2"])
    assert found["rollout.n"] == "--set rollout.n=3" and found["engine.gpus"] == "--set engine.gpus=2"
    assert found["rollout.texts"] == path and "rollout.temperature" not in found and "rollout.texts.title" not in found


@pytest.mark.parametrize("name", TASKS)
def test_every_task_loads_with_its_labels_in_order(name):
    wanted = yaml.safe_load((CONF / name).read_text())
    assert list(load(None, [f"task={Path(name).stem}"]).labels.labels.items()) == list(wanted["labels"].items())


def test_every_key_of_the_base_is_known_and_none_is_missing():
    assert load().model_dump(exclude={"labels"}).keys() == yaml.safe_load((CONF / "base.yaml").read_text()).keys()


def test_the_handwriting_task_asks_what_its_checkpoint_was_taught():
    from jobs.steps import recipes
    from models.handwriting import tiny

    settings = load("conf/local.yaml")
    assert settings.labels.prompt == tiny.PROMPT
    recipe = recipes.of_settings(settings)
    assert recipe.json["frames"] == {"count": 8, "max_pixels": 3136, "fps": 4.0}  # what is at its default is not in it
    assert recipes.plan(recipe, settings).frames == tiny.FRAMES


def test_production_shows_32_frames_of_as_many_pixels_as_448_squared():
    frames = load("conf/prod.yaml").frames.model_dump()
    assert frames == {"count": 32, "max_pixels": 448 * 448, "fps": 2.0, "fit": "aspect", "sampling": "uniform"}


def test_a_task_may_be_a_file_anywhere(site, tmp_path, monkeypatch):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "actions.yaml").write_text(
        "task: actions\nlabels: {jump: Somebody jumps., other: Nobody does.}\n"
    )
    found = load(site("task: sets/actions.yaml\n"))  # from the site's file
    assert (found.task, list(found.labels.labels)) == ("actions", ["jump", "other"])
    monkeypatch.chdir(tmp_path / "sets")
    assert load(None, ["task=actions.yaml"]).task == "actions"  # from here
    (line,) = refused("task=absent.yaml")
    assert line.startswith("--set task=absent.yaml: task: expected the file of a label set, found none: ")
    (tmp_path / "sets" / "broken.yml").write_text("task: broken\nlables: {a: x, b: y}\n")
    lines = refused("task=broken.yml")
    assert any("broken.yml: unknown setting 'lables'; the nearest valid one is 'labels'" in line for line in lines)


def test_how_frames_are_fitted_and_sampled_is_known_by_name():
    lines = refused("frames.fit=crop", "frames.sampling=keyframes")
    assert [line.partition(",")[0] for line in lines] == [
        "--set frames.fit=crop: 'frames.fit': input should be 'aspect' or 'square'",
        "--set frames.sampling=keyframes: 'frames.sampling': input should be 'uniform' or 'scene'",
    ]


def test_an_unknown_key_is_named_with_its_flag_and_the_nearest_valid_one():
    (line,) = refused("rollout.temprature=0.5")
    assert line == (
        "--set rollout.temprature=0.5: unknown setting 'rollout.temprature'; "
        "the nearest valid one is 'rollout.temperature'"
    )


def test_an_unknown_key_is_named_with_its_file(site):
    path = site("wave: {seconds: 3}\nengine: {dtyp: float32}\n")
    lines = refused(conf=path)
    assert {line.partition(":")[0] for line in lines} == {path}
    assert sorted(re.findall("'(.*?)'", line) for line in lines) == [["engine.dtyp", "engine.dtype"], ["wave", "waves"]]


def test_all_mistakes_come_at_once_each_with_its_place(site):
    path = site("rollout: {n: 0}\nframes: {count: none}\n")
    lines = refused("decide.threshold=1.5", "waves.secnds=1", "task=nothing", conf=path)
    assert len(lines) == 5
    text = "\n".join(lines)
    assert f"{path}: 'rollout.n'" in text and f"{path}: 'frames.count'" in text
    assert "--set decide.threshold=1.5: 'decide.threshold'" in text and "found 1.5" in text
    assert "'waves.seconds'" in text and "--set task=nothing: task 'nothing' needs a file" in text


def test_unreadable_layers_do_not_hide_other_mistakes(site):
    lines = refused("rollout.n", "waves.secnds=1", conf=site("a: [1\n"))
    assert len(lines) == 3
    assert "not readable as YAML" in lines[1] and "expected section.key=value" in lines[2] and "secnds" in lines[0]


def test_completions_must_fit_beside_a_video():
    (line,) = refused("rollout.max_tokens=1024")
    assert line.startswith("rollout.max_tokens: expected less than engine.max_model_len=1024")


def test_an_engine_is_given_longer_than_a_decoder():
    (line,) = refused("engine.stall_seconds=30")
    assert line == "engine.stall_seconds: expected more than decode.timeout_seconds=30, found 30"


def test_a_section_is_no_value():
    (line,) = refused("rollout=8")
    assert line == "--set rollout=8: 'rollout' is a section: expected rollout.<setting>, found 8"


def test_a_folder_is_no_configuration(tmp_path):
    (line,) = refused(conf=str(tmp_path))
    assert line.startswith(f"{tmp_path}: expected a YAML file")


def test_a_task_without_a_labels_file_is_refused_with_the_known_tasks():
    (line,) = refused("task=nothing")
    assert "conf/labels/nothing.yaml" in line
    assert "found those of handwriting, kinetics, multihateclip, smarthome; the path" in line


def test_a_site_has_its_own_label_sets_beside_its_file(site, tmp_path):
    conf = site("task: sports\n")
    (line,) = refused(conf=conf)
    assert f"needs a file with its labels, {tmp_path / 'labels' / 'sports.yaml'} or " in line
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "sports.yaml").write_text("task: sports\nlabels: {ball: A ball., bat: A bat.}\n")
    assert list(load(conf).labels.labels) == ["ball", "bat"]
    (line,) = refused("task=/somewhere/sports")
    assert "'task': string should match pattern" in line


@pytest.fixture
def task(site, tmp_path):
    """task(text) -> path of a site's file whose task `t` has that file of labels."""

    def write(text: str) -> str:
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / "t.yaml").write_text(f"task: t\n{text}\n")
        return site("task: t\n")

    return write


def test_labels_exclude_each_other_unless_the_task_says_otherwise(task):
    assert load(task("labels: {a: A., b: B.}")).labels.mode == "exclusive"
    assert load(task("mode: independent\nlabels: {a: A.}")).labels.mode == "independent"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("labels: {a: A.}", "'labels': expected 2 labels or more, or `mode: independent`"),
        ("mode: independent\nlabels: {}", "'labels': dictionary should have at least 1 item"),
        ("mode: independent\nlabels: {a: A., none: N.}", "'labels': expected another slug than none"),
        (
            "labels: {straße: A., strasse: B.}",
            "'labels': expected labels that differ in any case, found straße and strasse",
        ),
        ("labels: {a b: A., b: B.}", "'labels.a b.[key]': expected a label of lower-case letters and digits"),
        ("labels: {x̶<: A., b: B.}", "'labels.x̶<.[key]': expected a label of lower-case letters and digits"),
        ("mode: both\nlabels: {a: A., b: B.}", "'mode': input should be 'exclusive' or 'independent'"),
    ],
)
def test_a_label_set_that_does_not_fit_its_mode_is_refused(task, tmp_path, text, said):
    (line,) = refused(conf=task(text))
    assert line.startswith(f"{tmp_path / 'labels' / 't.yaml'}: {said}")


@pytest.mark.parametrize("label", ["हिंसा", "ความรุนแรง", "பாலியல்", "عُنف", "暴力_2", "gro\u0308\u00dfe", "می\u200cخواهم"])
def test_a_label_may_be_written_in_any_script(task, label):
    """Marks above and below letters are parts of words; what is written in two signs is one where there is one."""
    assert list(load(task(f"labels: {{{label}: A., b: B.}}")).labels.labels) == [
        unicodedata.normalize("NFC", label),
        "b",
    ]


def test_a_threshold_of_independent_labels_is_no_less_than_one_half(task):
    conf = task("mode: independent\nlabels: {a: A.}")
    (line,) = refused("decide.threshold=0.4", conf=conf)
    assert line.startswith("decide.threshold: expected at least 0.5, for the labels of task t are independent")
    assert load(conf, ["decide.threshold=0.5"]).decide.threshold == 0.5
    assert load(None, ["decide.threshold=0.4"]).decide.threshold == 0.4


def test_the_model_of_the_project_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(load().model.path).is_dir()
    (tmp_path / "mine").mkdir()
    assert load(None, ["model.path=mine"]).model.path == "mine"


def test_the_labels_of_a_task_cannot_be_set_from_elsewhere(site):
    (flag,) = refused("labels.labels.rising=Up.")
    assert flag.startswith("--set labels.labels.rising=Up.: unknown setting 'labels'")
    (file,) = refused(conf=site("labels: {task: handwriting}\n"))
    assert "unknown setting 'labels'" in file


@pytest.mark.parametrize(
    ("text", "value"), [("rollout.n=8", 8), ("rollout.temperature=0", 0.0), ("rollout.salt='7'", "7")]
)
def test_set_gives_values_their_type(text, value):
    found = getattr(load(None, [text]).rollout, text.partition("=")[0].rpartition(".")[2])
    assert found == value and type(found) is type(value)


def test_set_wins_over_the_site_and_the_last_set_over_the_first(site):
    path = site("rollout: {n: 2, seed: 5}\n")
    settings = load(path, ["rollout.n=3", "rollout.n=6"])
    assert (settings.rollout.n, settings.rollout.seed, settings.rollout.max_tokens) == (6, 5, 64)


def test_set_takes_lists_null_and_values_with_an_equals_sign():
    settings = load(None, ["rollout.stop=[a, b]", "engine.kv_cache_mb=null", "rollout.salt=a=b"])
    assert settings.rollout.stop == ("a", "b")
    assert settings.engine.kv_cache_mb is None and settings.rollout.salt == "a=b"


@pytest.mark.parametrize("text", ["rollout.n", "=8", "rollout.n=many", "rollout.n=1.5", "rollout.n=[", "rollout=5"])
def test_a_set_that_cannot_be_used_is_refused_by_its_own_text(text):
    lines = refused(text)
    assert all(line.startswith(f"--set {text}:") for line in lines)


def test_words_of_a_site_replace_the_whole_mapping(site):
    path = site("ingest: {labels: {values: {Up: rising, Down: falling}}}\n")
    assert load(path, ["ingest.labels.values={Hoch: rising}"]).ingest.labels.values == {"Hoch": "rising"}
    assert load(path).ingest.labels.id == "file"


@pytest.mark.parametrize(
    ("text", "said"),
    [("- a list\n", "expected sections"), ("a: [1\n", "not readable as YAML"), (None, "no such configuration file")],
)
def test_a_file_that_is_no_configuration_is_named(site, tmp_path, text, said):
    path = str(tmp_path / "absent.yaml") if text is None else site(text)
    (line,) = refused(conf=path)
    assert line.startswith(path) and said in line


def test_an_empty_file_changes_nothing(site):
    assert load(site("# nothing yet\n")) == load()
