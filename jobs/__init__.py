"""One file per command: pure DataFrame transforms on top, run() strings steps together, main() is three lines."""
