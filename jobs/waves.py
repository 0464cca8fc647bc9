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

from jobs.runtime import cli
from jobs.runtime.errors import UsageError
from jobs.runtime.run import Run
from lake import catalog
from lake.recovery import state
from lake.staging import Wave, all_waves
from lake.waves import settle

IS_A_RUN = False
TAKES_BUDGET = False


def run(run: Run, arguments: argparse.Namespace) -> None:
    catalog.require(run.lake.root)
    silence = run.settings.waves.lease_seconds
    found = {wave.id: wave for wave in all_waves(run.lake.root)}
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
        settled = settle(run.lake, wave, release=True)
        landed = {
            name: {"landed": entry.rows, "refused": sum(settled.reasons[name].values())}
            for name, entry in settled.landed.items()
        }
        print(json.dumps({"released": wave.id, "tables": landed}))
    else:
        wave.remove()
        print(json.dumps({"discarded": wave.id}))


def _line(wave: Wave, found: str) -> dict:
    rows = {}
    if found != "damaged" and (manifest := wave.manifest()):
        rows = {output.table: output.rows for output in manifest.outputs}
    return {"wave_id": wave.id, "state": found, "rows": rows, "faults": wave.faults()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("list", "release", "discard"))
    parser.add_argument("wave_id", nargs="?", default="", help="as `waves list` shows it")


def main() -> int:
    return cli.main(["waves", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
