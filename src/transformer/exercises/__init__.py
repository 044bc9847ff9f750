"""Exercises: the reader writes parts of the model; the project's own properties check them, and training can use them.

Reading a solution feels like understanding it. Writing one shows what is missing.

    stubs/         the files that a reader fills in, in reading order
    properties/    what each part must do: tests/ calls these functions with the project's code, the check with the
                   reader's, so both mean the same by "correct"
    catalogue.py   which stub goes with which properties
    checking.py    runs the properties on a reader's file; isolation.py does so in a process of its own
    folder.py      makes the folder, and remembers what has passed
    parts.py       puts a reader's parts into a training run
"""
