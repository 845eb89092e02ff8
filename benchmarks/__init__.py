"""Speed, size and memory: one registry, one runner, no figure before its correctness gate."""
