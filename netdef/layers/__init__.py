"""One file per layer, or per small family. A file that stands here is found; no list names it."""
