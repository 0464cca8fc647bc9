"""The two readers of a training's lessons: rows per second, seconds until an epoch's first step, memory.

python -m benchmarks.readers [--rows 200000] [--epochs 3] [--batch 256]

Lessons are made up (about 1 KiB of text each); each reader deals them out in a process of its own, as a training of one
process asks for them. Memory is what the process holds beyond what it began with, at most: its own, and with the pages of
mapped files that happen to be in memory, which the system takes back when it needs them. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.training.lessons import COLUMNS, write
from models.training.parquet_lessons import dataset_of, materialise
from models.training.reading import Epochs, open_reader

PROJECT = Path(__file__).resolve().parent.parent
KINDS = ("arrow", "petastorm")
_AT_ONCE = 10_000  # rows of a batch while they are made
