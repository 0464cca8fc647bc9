"""python -m benchmarks.ablation. A file of its own: decoders begin with the main script, and what it imports would count
against their memory; one of this name they leave out."""

import sys

from benchmarks.ablation import main

sys.exit(main())
