"""One file per kind of group. A file that stands here is found; no list names it."""
