"""The commands of the command line, a file each.

A command is a module of its name with `run(argv) -> int`: argv[0] is the command's name, the rest its flags; it returns
the exit code. `__main__` turns ValueError, OSError and WorkdirInUseError into a message and exit code 2, PreemptedError
into 75, and ends a command with 75 wherever a signal meets it. To add one, write the module (`arguments` reads flags
and configs, `command_line` opens the log)
and give it a line in `__main__.COMMANDS`. What takes long to import (jax, studies, sweeps) is imported inside
`run`, so that bad flags and the list of commands answer at once. Flags and ConfigDict end here: what is called gets
dataclasses and plain values.
"""
