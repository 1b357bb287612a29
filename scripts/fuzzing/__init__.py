"""Damaged files of every kind: none may bring netdef down.

``scripts/fuzz`` finds the kinds by file: each ``targets/<name>.py`` is one, and has

    COUNT                   how many mutants make a full run
    mutant(random)          a damaged file, a function of the random generator alone
    read(content, folder)   reads it as netdef does, from a file in ``folder`` if it needs one

``read`` returns where the file was accepted, and raises NetdefError where it was refused. Anything
else is a failure: another exception, a process that dies, a second of work, a gigabyte of memory.
``originals()`` are files that are whole, so that a run can see that its target reads at all.
"""
