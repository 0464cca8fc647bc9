"""How rows get in and out: bytes by URI, tables, the one committer, waves, leases, the registry. Knows no science."""
