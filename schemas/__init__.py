"""The lake: one file per table, the contract of each, and the ways to read, audit and publish them."""
