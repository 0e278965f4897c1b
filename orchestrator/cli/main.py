"""The command line: `orchestrate COMMAND`. The module of a command is imported only when the command is run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from orchestrator import __version__
from orchestrator.cli import streams
from orchestrator.errors import OrchestratorError, nearest

COMMANDS = {
    "sweep": ("sweep", "run the trials of a sweep that are not finished yet"),
    "plan": ("plan", "print what `sweep` would run, without running it"),
    "try": ("try_one", "run one trial here, in this terminal"),
    "status": ("status", "the state of a sweep"),
    "trials": ("trials", "the trials as a table, CSV or JSON"),
    "show": ("show", "one trial: config, provenance, attempts, metrics"),
    "logs": ("logs", "the output of a trial"),
    "failures": ("failures", "failed trials, grouped by the way they failed"),
    "ls": ("ls", "a list of all sweeps"),
    "stop": ("stop", "stop a running sweep, as Ctrl-C does"),
    "resubmit": ("resubmit", "run failed trials again"),
    "sync": ("sync", "send to W&B and other trackers whatever has not arrived"),
}
MEANT = {  # words that people try, by what they mean
    "sweep": ("run", "start", "resume", "continue"),
    "plan": ("dry-run", "dryrun", "preview", "expand"),
    "try": ("debug", "test"),
    "status": ("info", "progress", "state"),
    "status --watch": ("watch", "monitor"),
    "trials": ("results", "table", "compare", "top", "list-trials"),
    "trials --format csv": ("export", "csv"),
    "show best": ("best",),
    "logs": ("log", "output", "tail"),
    "failures": ("errors", "failed"),
    "ls": ("list", "sweeps"),
    "stop": ("kill", "cancel", "abort", "end", "quit"),
    "resubmit": ("retry", "rerun", "restart"),
    "sync": ("upload", "push"),
}
REMOVERS = ("clean", "delete", "remove", "rm", "prune")
GO_ON = ("sweep", "resubmit", "sync", "stop")  # these do their work whoever reads their output
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. A mistake of the user gives one message and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    goes_on = bool(words) and words[0] in GO_ON
    with streams.opened(lasting=goes_on):
        try:
            code = _run(words)
            sys.stdout.flush()  # here, so that a closed pipe is handled below
            return code
        except OrchestratorError as error:
            print(f"orchestrate: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            if goes_on:
                print("orchestrate: interrupted", file=sys.stderr)
            return INTERRUPTED
        except streams.ClosedError:
            return 0


def _run(words: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:  # the shell completes a line
        words = _completed_command()
    command = words[0] if words else "--help"
    if command == "help" and words[1:2] and words[1] in COMMANDS:
        command, words = words[1], [words[1], "--help"]
    if command in ("-h", "--help") or words == ["help"]:
        print(usage())
        return 0
    if command in ("-V", "--version"):
        print(f"orchestrate {__version__}")
        return 0
    if command not in COMMANDS:
        raise _unknown(words[1] if command == "help" else command)
    module = importlib.import_module(f"orchestrator.cli.{COMMANDS[command][0]}")
    try:
        code: int = module.run(words[1:])
    except SystemExit as ended:  # after --help
        code = int(ended.code or 0)
    return code


def _completed_command() -> list[str]:
    """The command in the line that the shell completes; its parser answers. Without one, answers with the commands."""
    from orchestrator.cli import completion

    command = completion.command_in(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]), COMMANDS)
    if command is None:
        completion.complete_commands(list(COMMANDS))
    return [command or "--help"]


def _unknown(command: str) -> OrchestratorError:
    """No such command; suggests one only if it is close in meaning or in spelling."""
    fix = "orchestrate --help lists them"
    near = next((meant for meant, words in MEANT.items() if command in words), None) or nearest(command, COMMANDS)
    if near:
        fix = f"did you mean orchestrate {near}?"
    elif command in REMOVERS:
        fix = "nothing is ever deleted here: a sweep is a folder below runs/, which you may delete yourself"
    return OrchestratorError(f"no such command: {command}", fix=fix)


def usage() -> str:
    """The text of `orchestrate --help`."""
    lines = [f"  {name:<10} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: orchestrate COMMAND …          (more: orchestrate COMMAND --help)",
            "",
            *lines,
            "",
            "SWEEP is the name or the folder of a sweep; the default is the latest one.",
            "TRIAL is the first digits of a trial's id, `best` or `last` (started last); or SWEEP/TRIAL.",
            "Exit codes: 0 all trials succeeded, 1 some failed, 2 bad input, 130 interrupted.",
        ]
    )
