"""The ``netdef`` command: one file per subcommand, found by standing here."""
