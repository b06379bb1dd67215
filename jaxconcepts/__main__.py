"""The command line: python -m jaxconcepts COMMAND --flag=value. `python -m jaxconcepts` lists the commands.

Each command is a module of `jaxconcepts.commands`, whose docstring says how to add one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module

# Nothing slow here, for signals are handled only once `main` has begun.
from jaxconcepts.commands import compiled
from jaxconcepts.runs import preemption

COMMANDS = {
    "train": "train and measure the runs of a config: --config=configs/X.py --workdir=DIR [--config.field=value]",
    "sweep": "train every point of a config's get_sweep(): --config=configs/X.py --workdir=DIR [--shard=i/n]",
    "status": "show the progress of a sweep, also while it runs: --workdir=DIR",
    "plan": "estimate memory and time: --config=... | --model=NAME, and --topology=v5p:4x4x4 | --local",
    "extract": "store a language model's hidden states: --model=FOLDER|ID --prompts=FILE.jsonl --[no]bos --workdir=DIR",
    "decodability": "CD of a label of an extraction at every layer: --workdir=DIR --label=NAME [--k=10]",
    "patch": "patch concepts' mean states and ablate heads in a training's checkpoints: --workdir=DIR [--run --step]",
    "icl": "in-context accuracy and CD: --config=configs/icl.py --model=FOLDER|ID | --checkpoints=... --workdir=DIR",
    "causal": "patch, steer and ablate a language model: --config=configs/causal.py --model=FOLDER|ID --workdir=DIR",
    "finetune": "tune some layers; measure CD and accuracy before and after: --config=... --model=... --workdir=DIR",
    "icl_from_scratch": "train a small model on the tasks, then run icl on its checkpoints: --config=... --workdir=DIR",
    "report": "draw the figures and report.html of a run directory: --workdir=DIR, or DIR,DIR to compare",
    "demo": "train a very small model and draw the page, in a minute or two: [--workdir=runs/demo]",
}

EXAMPLES = (
    "demo",
    "train --config=quickstart --workdir=runs/first",
    "sweep --config=sweep_small --workdir=runs/sweep --config.train.steps=100",
)


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for bad input, 1 for a full disk and a plan that does not fit.

    argv: the program's name, the command and its flags. Without it, those of this process, which signals and an output
    that nobody reads then end with 75.
    """
    if argv is not None:
        return _run(argv, contextlib.nullcontext())
    _open_streams()
    preemption.end_on_signals()
    compiled.keep()
    try:
        from jaxconcepts.commands import pulse

        return _run(sys.argv, pulse.beating())
    except BrokenPipeError:
        preemption.nobody_reads()
        return preemption.EXIT_PREEMPTED
    finally:
        _flush()


def _open_streams() -> None:
    """Standard streams that are closed lead nowhere: the next file opened would be one of them, and get what libraries
    print. A line is seen when it is written, and text that the terminal cannot show stops nothing."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free, which is this one.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _flush() -> None:
    """What cannot be written is given up: Python would end with a message and an exit code of its own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(argv: list[str], beating: contextlib.AbstractContextManager) -> int:
    command = argv[1] if len(argv) > 1 else ""
    if sys.platform == "win32":
        print("error: Windows is not supported; use WSL, the Windows Subsystem for Linux", file=sys.stderr)
        return 2
    try:
        if command not in COMMANDS:
            return _without_command(command)
        with beating:
            return import_module(f"jaxconcepts.commands.{command}").run(argv[1:])
    except Exception as error:
        return _exit_code(error, argv)


def _without_command(command: str) -> int:
    """Lists the commands, or says which one is near what was given."""
    from jaxconcepts import __version__
    from jaxconcepts.commands.arguments import program

    if command in ("--version", "version"):
        print(f"jaxconcepts {__version__}")
        return 0
    if command not in ("", "help", "--help", "-h"):
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        print(f"error: unknown command {command!r}; {hint}", file=sys.stderr)
        return 2
    lines = "\n".join(f"  {name:<16} {text}" for name, text in COMMANDS.items())
    examples = "\n".join(f"  {program()} {example}" for example in EXAMPLES)
    print(
        f"usage: {program()} COMMAND [--flag=value ...]\n\n{lines}\n\n"
        f"{program()} COMMAND --help lists a command's flags, with --config=NAME also the config's fields. Examples:\n"
        f"{examples}",
        file=sys.stderr,
    )
    return 0


def _exit_code(error: Exception, argv: list[str]) -> int:
    """Says in one line what ended a command; raises what is nobody's input, a bug."""
    from jaxconcepts import extras
    from jaxconcepts.store import WorkdirInUseError
    from jaxconcepts.store.files import says_full

    if isinstance(error, BrokenPipeError):
        raise error  # Of the output: what the process as a whole ends with.
    if isinstance(error, preemption.PreemptedError):
        import logging

        logging.getLogger("jaxconcepts").warning("%s", error)
        return preemption.EXIT_PREEMPTED
    if says_full(error):
        workdir = next((argument for argument in argv if argument.startswith("--workdir")), argv[1])
        path = getattr(error, "filename", None) or f"for {workdir}"
        text = (
            f"the disk is full, while writing {path}; everything up to the last checkpoint is kept: free some space, "
        )
        print(f"error: {text}and the same command continues", file=sys.stderr)
        return 1
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{os.fsdecode(error.filename)} cannot be read or written: {error.strerror}"
    elif isinstance(error, ImportError) and (extra := extras.extra_of(error)):
        text = f'{error.name} is needed and not installed: pip install "jaxconcepts[{extra}]"'
    elif isinstance(error, ValueError | OSError | WorkdirInUseError) or "install" in str(error):
        text = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
    else:
        raise error
    print(f"error: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
