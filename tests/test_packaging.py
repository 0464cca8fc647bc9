"""What travels: the archive for executors, the package, and targets that explain themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile

from support import PROJECT

from models.training.reading import PETASTORM

ROOMS = ("conf", "jobs", "lake", "models", "schemas", "udfs")


def test_the_archive_for_executors_imports_on_its_own(tmp_path):
    listed = subprocess.run(["make", "-n", "dist"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    command = next(line for line in listed.splitlines() if "zipfile" in line)
    archive = tmp_path / "deepintuit.zip"
    command = command.replace("dist/deepintuit.zip", str(archive)).replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-c", command], cwd=PROJECT, check=True)
    assert "udfs/rollout.py" in zipfile.ZipFile(archive).namelist()
    imports = "import udfs.probe, udfs.calibrator, udfs.imported, udfs.inventory, udfs.rollout, lake.write"
    ours = "{name: module.__file__ for name, module in sys.modules.items() if name.partition('.')[0] in rooms}"
    code = (
        f"import sys, json; sys.path.insert(0, {str(archive)!r}); rooms = {ROOMS}; {imports}; print(json.dumps({ours}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    places = json.loads(found.stdout)
    assert {name.partition(".")[0] for name in places} == {"lake", "models", "schemas", "udfs"}  # no job, no settings
    assert all(place.startswith(str(archive)) for place in places.values())


def test_every_target_of_the_makefile_says_what_it_does():
    lines = (PROJECT / "Makefile").read_text().splitlines()
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    for target in phony:
        assert any(re.match(rf"{target}:.*## \S", line) for line in lines), target


def test_setup_reads_its_requirements_from_the_files():
    names = subprocess.run(
        [sys.executable, "setup.py", "--name"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert names.stdout.strip().splitlines()[-1] == "deepintuit"


def test_the_petastorm_that_is_locked_is_the_one_that_is_mended():
    assert f"\npetastorm=={PETASTORM}\n" in (PROJECT / "requirements" / "petastorm.in").read_text()
    assert f"\npetastorm=={PETASTORM} " in (PROJECT / "requirements" / "dev.lock").read_text()
