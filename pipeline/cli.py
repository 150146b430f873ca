"""The command ``foldnorm``: finds the command asked for, runs it, and turns errors into codes.

0 all done; 1 some subjects failed, or a file could not be written; 2 bad arguments, config or
input; 70 our fault; 75 stopped by a signal with the state saved; 130 Ctrl-C; 141 who read what is
printed has left.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    sys.path.pop(0)  # the current folder, which `python -m` puts there: what lies in it is data

import argparse
import importlib
import io
import logging
import os
import select
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from foldnorm.pipeline.commands.outcome import say
from foldnorm.pipeline.commands.words import arrange
from foldnorm.preprocessing.core.errors import InputError, Stopped
from foldnorm.preprocessing.core.locks import LOCK, held, held_file

# Order of `foldnorm --help`: that of a study.
COMMANDS = (
    "demo",
    "phantom",
    "inspect",
    "skeletonise",
    "template",
    "folds",
    "atlas",
    "preprocess",
    "images",
    "train",
    "embed",
    "latent",
    "alter",
    "score",
    "combine",
    "benchmark",
    "translate",
    "label-sulci",
    "classify",
    "crossvalidate",
    "restore",
    "compare",
    "search",
    "generate",
    "evaluate-synthetic",
    "export",
    "report",
    "view",
    "models",
    "doctor",
)
# Modules that cannot be called as their command: the standard library has one of that name.
MODULES = {"inspect": "inspect_source"}
TRUST = "FOLDNORM_TRUST"  # environment variable that `foldnorm.models.class_paths` reads
SHELLS = ("bash", "zsh", "tcsh")
FAILED, BAD_INPUT, OUR_FAULT, INTERRUPTED, UNREAD = 1, 2, 70, 130, 141


class Parser(argparse.ArgumentParser):
    """Parser that says in one line what is wrong with a command line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the usage, and leave."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


class PrintCompletion(argparse.Action):
    """Prints a script for a shell, and leaves."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Print it."""
        del namespace, option_string
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("shtab is not installed: pip install 'foldnorm[completion]'")
        try:
            print(shtab.complete(parser, shell=values), flush=True)
        except BrokenPipeError:
            _discard(sys.stdout)
            parser.exit(UNREAD)
        parser.exit(0)


def build_parser() -> tuple[Parser, Mapping[str, Parser]]:
    """Build the parser of all commands, and that of each, without any of the heavy libraries."""
    parser = Parser(
        prog="foldnorm",
        description="Learn what healthy cortical folding looks like, and score brains against it. "
        "For research; not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"foldnorm {version('foldnorm')}")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=PrintCompletion,
        help="print what makes a shell complete commands and options",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"foldnorm.pipeline.commands.{_module(name)}")
        command = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.usage = _usage(command)
        command.add_argument("--quiet", action="store_true", help="print errors and warnings only")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.add_argument(
            "--trust",
            action="append",
            metavar="PACKAGE",
            default=[],
            help="let configurations name networks, losses and models of this Python package",
        )
        command.set_defaults(run=module.run)
    return parser, subparsers.choices


def _usage(command: argparse.ArgumentParser) -> str:
    """Write a command as it is called: its inputs, its required options, the others."""
    forms = {"+": "{} …", "*": "[{} …]", "?": "[{}]"}
    inputs = [
        forms.get(str(action.nargs), "{}").format(action.metavar)
        for action in command._get_positional_actions()
    ]
    required = [
        f"{action.option_strings[0]} {action.metavar}"
        for action in command._get_optional_actions()
        if action.required
    ]
    return " ".join([command.prog, *inputs, *required, "[options]"])


def _module(command: str) -> str:
    return MODULES.get(command, command.replace("-", "_"))


class LineFormatter(logging.Formatter):
    """Formats a log record as a line of the command: ``foldnorm: warning: …``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"foldnorm: {record.levelname.lower()}: {record.getMessage()}"


class Once(logging.Filter):
    """Passes a message on the first time: studies resolve a configuration for every training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Say if the message is new."""
        message = record.getMessage()
        is_new = message not in self.seen
        self.seen.add(message)
        return is_new


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print what the library logs to stderr while a command runs, once if it runs another."""
    log = logging.getLogger("foldnorm")
    if log.handlers:
        yield
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(Once())
    log.addHandler(handler)
    matplotlib = logging.getLogger("matplotlib")
    level = matplotlib.level
    matplotlib.setLevel(logging.ERROR)  # it says at length where it could not keep a list of fonts
    try:
        yield
    finally:
        log.removeHandler(handler)
        matplotlib.setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _make_printable()
    try:
        code = _run(argv)
    except SystemExit:  # of --help, or of a command line that is refused
        _flushed(0)
        raise
    return _flushed(code)


def _run(argv: Sequence[str] | None) -> int:
    parser, commands = build_parser()
    given = sys.argv[1:] if argv is None else argv
    if sorted(given) == ["--debug", "--version"]:  # all that a report of an error needs
        given = ["doctor"]
    words, overrides = arrange(given, commands)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        commands[arguments.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.overrides, arguments.main = overrides, main
    if arguments.trust:  # in the environment, so that processes it starts trust them, too
        os.environ[TRUST] = ",".join([os.environ.get(TRUST, ""), *arguments.trust])
    try:
        with warnings_as_lines(), _held_output(arguments):
            return int(arguments.run(arguments))
    except InputError as error:
        return _failed(str(error), BAD_INPUT, arguments.debug)
    except Stopped as stopped:
        say(f"stopped; the same command goes on: {arguments.out}")
        return stopped.code
    except KeyboardInterrupt:
        return _failed("interrupted", INTERRUPTED, arguments.debug)
    except Exception as error:
        return _explained(error, arguments.debug)


def _explained(error: Exception, debug: bool) -> int:
    """Say what a machine lacks, or that the error is ours; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return UNREAD
    if isinstance(error, OSError):
        place = f": {error.filename}" if error.filename else ""
        return _failed(f"{error.strerror or error}{place}", FAILED, debug)
    if isinstance(error, MemoryError):
        return _failed(f"not enough memory ({error})", FAILED, debug)
    if type(error).__name__ == "OutOfMemoryError":  # torch's; not imported for its name
        reason = str(error).split(". ")[0]
        return _failed(f"not enough memory on the GPU ({reason})", FAILED, debug)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    message = (
        f"internal error, {type(error).__name__} at {frame.name}: {error} "
        "(please report it, with the output of --debug)"
    )
    return _failed(message, OUR_FAULT, debug)


def _held_output(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Hold the folder or file that a command writes to, or the part of it that its shard writes."""
    kind = getattr(arguments, "holds_out", "")
    if kind == "file":
        return held_file(arguments.out)
    shard = getattr(arguments, "shard", None)
    name = f"{LOCK}.{shard[0]}" if shard else LOCK
    return held(arguments.out, name) if kind == "folder" else nullcontext()


def _make_printable() -> None:
    """Let every name be printed, whatever a terminal knows, and nothing if there is none."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Say if who read what is printed has left, as ``| head`` does; Windows does not tell."""
    if not hasattr(select, "poll"):
        return False
    watched = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # it stands for no file
            watched.register(stream.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))


def _flushed(code: int) -> int:
    """Print what is left to print; the exit code says if that was not possible."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # what was to be done is done
            _discard(stream)
        except OSError as error:
            _discard(stream)
            code = code or _failed(f"{error.strerror}: what is printed", FAILED, debug=False)
    return code


def _discard(stream: Any) -> None:
    """Drop what a stream still holds, so that Python does not complain of it at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def _failed(message: str, code: int, debug: bool) -> int:
    with suppress(BrokenPipeError):
        if debug:
            traceback.print_exc()
        say(f"error: {message}")
    return code


if __name__ == "__main__":
    sys.exit(main())
