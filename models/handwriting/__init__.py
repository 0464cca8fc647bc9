"""The embedded benchmark: short clips of handwritten digits, their oracle teacher and the tiny model that watches them.

It stands in for a real open-instance task: three labels, real handwriting, and more variation inside a label (writer,
size, place, light, clutter, pace, codec) than between labels.
"""
