"""waves: what is staged and not yet published, and a person's decision over waves that a gate holds.

    deepintuit waves list
    deepintuit waves release WAVE_ID     publish what is good, quarantine the rest
    deepintuit waves discard WAVE_ID     drop it; its work is pending again

None of them runs the model.
"""

from __future__ import annotations

import argparse
import json
import sys

from jobs import cli, lease, staging
from jobs.run import Run, UsageError
from models import storage
from schemas import lake

READS_ONLY = True
TAKES_BUDGET = False


def state(wave: staging.Wave, silence_seconds: float) -> str:
    """held | staged | running | unfinished"""
    record = lease.read(staging.run_folder(wave.root, wave.run_id))
    if storage.exists(wave.held_uri) and wave.manifest():
        return "held"
    if record is not None and lease.alive(record, silence_seconds):
        return "running"
    return "staged" if wave.manifest() else "unfinished"


def everything(root: str) -> list[staging.Wave]:
    runs = storage.children(storage.join(root, "staging"))
    return [wave for run_id in runs for wave in staging.staged_waves(root, run_id)]


def run(run: Run, arguments: argparse.Namespace) -> None:
    lake.require(run.root)
    silence = run.settings.waves.lease_seconds
    found = {wave.id: wave for wave in everything(run.root)}
    if arguments.action == "list":
        listed = [_line(wave, state(wave, silence)) for wave in found.values()]
        print(json.dumps({"waves": listed}))
        return
    if not arguments.wave_id:
        raise UsageError(f"waves {arguments.action}: expected a wave's id; staged: {', '.join(found) or 'none'}")
    if arguments.wave_id not in found:
        raise UsageError(
            f"waves {arguments.action}: no staged wave {arguments.wave_id}; staged: {', '.join(found) or 'none'}"
        )
    wave = found[arguments.wave_id]
    if state(wave, silence) == "running":
        raise UsageError(f"waves {arguments.action}: {wave.id} belongs to a run that is alive")
    if arguments.action == "release":
        settled = staging.settle(run.spark, wave, release=True)
        landed = {
            name: {"landed": entry.rows, "refused": settled.refused[name]} for name, entry in settled.landed.items()
        }
        print(json.dumps({"released": wave.id, "tables": landed}))
    else:
        staging.remove_wave(wave)
        print(json.dumps({"discarded": wave.id}))


def _line(wave: staging.Wave, found: str) -> dict:
    manifest = wave.manifest()
    faults = json.loads(storage.read_bytes(wave.held_uri))["faults"] if found == "held" else []
    rows = {output.table: output.rows for output in manifest.outputs} if manifest else {}
    return {"wave_id": wave.id, "state": found, "rows": rows, "faults": faults}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "release", "discard"))
    parser.add_argument("wave_id", nargs="?", default="", help="as `waves list` shows it")


def main() -> int:
    return cli.main(["waves", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
