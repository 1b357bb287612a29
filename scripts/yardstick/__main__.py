"""``python -m yardstick``, which ``scripts/bench`` runs."""

import sys

from yardstick.bench import main

# What workers import is ``__main__`` once more, under another name.
if __name__ == "__main__":
    main(sys.argv[1:])
