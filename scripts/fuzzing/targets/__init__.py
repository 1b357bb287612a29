"""The kinds of files that are spoilt: see ``fuzzing``."""
