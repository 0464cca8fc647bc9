"""One of two writers that race for the same keys: python racer.py ROOT WHO KEYS [DELAY_S]

Takes one key that the table lacks, stages it, commits it, and says so on a line of its own; until no key is lacking.
DELAY_S: a pause between the look and the put, as of a store or a disk that is slow at the worst moment.
"""

import random
import sys
import time

import pyarrow as pa
from things import THINGS, staged, wave

from lake import commit
from lake.table import open_table


def main() -> None:
    root, who, keys = sys.argv[1], sys.argv[2], int(sys.argv[3])
    put, delay = commit._put, float(sys.argv[4]) if len(sys.argv) > 4 else 0.0

    def slow(*arguments):
        time.sleep(delay)
        return put(*arguments)

    commit._put = slow
    rng, number, collisions = random.Random(who), 0, 0
    snapshot = open_table(THINGS, root)
    while lacking := sorted({f"k{n}" for n in range(keys)} - keys_of(snapshot)):
        number += 1
        key, wave_id, looked_at = rng.choice(lacking[:4]), wave(who, number), snapshot.version()
        landed = commit.append(THINGS, root, staged(root, wave_id, key), f"{wave_id}/things", wave_id, looked_at)
        collisions += landed.collisions
        if landed.rows:
            print("acknowledged", key, flush=True)
        snapshot.update_incremental()
    print("collisions", collisions, flush=True)


def keys_of(snapshot) -> set[str]:
    """Each file has one row, so that the log tells its key."""
    return set(pa.table(snapshot.get_add_actions(flatten=True))["min.id"].to_pylist())


if __name__ == "__main__":
    main()
