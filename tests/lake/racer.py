"""One of two writers that race for the same keys: python racer.py ROOT WHO KEYS [DELAY_S]

Takes one key that the table lacks, stages it, commits it, and says so on a line of its own; until no key is lacking.
DELAY_S: a pause between the look and the put, as of a store or a disk that is slow at the worst moment.
"""

import random
import sys
import time

from things import THINGS, rows_of, staged, wave

from lake import commit


def main() -> None:
    root, who, keys = sys.argv[1], sys.argv[2], int(sys.argv[3])
    put, delay = commit._put, float(sys.argv[4]) if len(sys.argv) > 4 else 0.0

    def slow(*arguments):
        time.sleep(delay)
        return put(*arguments)

    commit._put = slow
    rng, number, collisions = random.Random(who), 0, 0
    while lacking := sorted({f"k{n}" for n in range(keys)} - {row["id"] for row in rows_of(root)}):
        number += 1
        key, wave_id = rng.choice(lacking[:4]), wave(who, number)
        landed = commit.append(THINGS, root, staged(root, wave_id, key), f"{wave_id}/things", wave_id)
        collisions += landed.collisions
        if landed.rows:
            print("acknowledged", key, flush=True)
    print("collisions", collisions, flush=True)


if __name__ == "__main__":
    main()
