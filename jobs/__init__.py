"""One file per job: pure DataFrame transforms on top, run() strings them together, main() is three lines."""
