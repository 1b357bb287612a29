"""One file per update rule. A file that stands here is found; no list names it."""
