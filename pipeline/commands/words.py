"""Words of a command line, put into the order that argparse reads, and old forms into the new one.

Inputs come first and options after them, wherever they were written: argparse itself mistakes what
follows an option for the value of another input. Keys of a configuration (``--training.steps 500``)
are taken out. Earlier releases knew some commands and flags by other names, and 0.1 wrote OUT as
the last input; these forms are understood until release 0.3, with a warning. Then `OLD_COMMANDS`,
`OLD_FLAGS` and what reads them go.
"""

import argparse
import re
import shlex
import sys
from collections import deque
from collections.abc import Mapping, Sequence

from foldnorm.pipeline.commands.outcome import say

OLD_COMMANDS = {
    "delete": "alter",
    "fuse": "combine",
    "quality": "evaluate-synthetic",
    "recognise": "label-sulci",
}
# Of each command, by its new name. In capitals: an input that was given by a flag.
OLD_FLAGS: Mapping[str, Mapping[str, str]] = {
    "preprocess": {
        "--split": "--split-fractions",
        "--folds": "--fold-labels",
        "--method": "--resampling",
        "--off-mask": "--outside-class",
        "--gather": "--finalize",
        "--like": "--layout-from",
    },
    "images": {
        "--split": "--split-fractions",
        "--size": "--shape",
        "--like": "--layout-from",
    },
    "train": {"--config": "CONFIG", "--cohort": "COHORT"},
    "latent": {
        "--folds": "--fold-table",
        "--method": "--reduction",
        "--most": "--max-clusters",
        "--place": "--project",
        "--number": "--num",
        "--scores": "--colour-by",
        "--brains": "--n-brains",
        "--steps": "--path-steps",
    },
    "score": {"--healthy": "--reference"},
    "combine": {"--method": "--combine"},
    "benchmark": {
        "--sizes": "--size",
        "--every-fold": "--leave-one-fold-out",
        "--healthy": "--reference",
    },
    "label-sulci": {"--atlas": "ATLAS"},
    "crossvalidate": {"--folds": "--cv-folds"},
    "compare": {"--cohort": "COHORT", "--sizes": "--size"},
    "search": {"--cohort": "COHORT"},
    "generate": {
        "--given": "--condition",
        "--number": "--num",
        "--sampler": "--scheduler",
        "--steps": "--sampling-steps",
    },
    "evaluate-synthetic": {"--number": "--num"},
}
FLAG = re.compile(r"-[^\d.]")  # how a flag begins; negative numbers are values


def arrange(
    argv: Sequence[str], commands: Mapping[str, argparse.ArgumentParser]
) -> tuple[list[str], list[str]]:
    """Put the words of a command line into the order that argparse reads.

    An old form is warned of in one line on stderr, which shows the new one.

    Args:
        argv: words after ``foldnorm``.
        commands: parser of each command, by its name.

    Returns:
        The words for argparse, and the keys of a configuration with their values, in the order in
        which they were given; the latter only of commands that take them.
    """
    name = OLD_COMMANDS.get(argv[0], argv[0]) if argv else ""
    if name not in commands:
        return list(argv), []
    line = _Line(name, commands[name])
    if name != argv[0]:
        line.renamed.append(f"{argv[0]} is now {name}")
    line.read(argv[1:])
    line.take_old_out()
    if line.renamed:
        words = shlex.join(["foldnorm", *line.words, *line.overrides])
        say(f"warning: {', '.join(line.renamed)}; the old form goes with release 0.3: {words}")
    return line.words, line.overrides


class _Line:
    """Inputs, options and overrides of a command line."""

    def __init__(self, command: str, parser: argparse.ArgumentParser) -> None:
        self.command = command
        self.parser = parser
        self.actions = parser._option_string_actions
        self.old = OLD_FLAGS.get(command, {})
        self.takes_overrides = bool(parser.get_default("takes_overrides"))
        self.inputs: list[str] = []
        # Inputs of old forms.
        self.by_flag: dict[str, list[str]] = {"CONFIG": [], "ATLAS": [], "COHORT": []}
        self.options: list[list[str]] = []  # each a flag with its values
        self.overrides: list[str] = []
        self.renamed: list[str] = []

    @property
    def words(self) -> list[str]:
        """Words for argparse: the command, its inputs, its options."""
        options = [word for option in self.options for word in option]
        if any(map(_is_flag, self.inputs)):  # such were given after --
            return [self.command, *options, "--", *self.inputs]
        return [self.command, *self.inputs, *options]

    def read(self, words: Sequence[str]) -> None:
        """Sort words into inputs, options and overrides."""
        queue = deque(words)
        while queue:
            word = queue.popleft()
            if word == "--":
                self.inputs += queue
                queue.clear()
            elif _is_flag(word):
                self._read_flag(word, queue)
            else:
                self.inputs.append(word)
        first = [*self.by_flag["CONFIG"], *self.by_flag["ATLAS"]]
        self.inputs = [*first, *self.inputs, *self.by_flag["COHORT"]]

    def take_old_out(self) -> None:
        """Take the last input for OUT where there is one too many, as release 0.1 wrote it."""
        had_out = "COHORT" in self.old.values()
        out = self.actions.get("--out")
        given = any(self._action(option[0].partition("=")[0]) is out for option in self.options)
        if had_out or given or out is None:
            return
        declared = self.parser._get_positional_actions()
        surplus = len(self.inputs) - len(declared)
        if surplus == 1 or (surplus > 1 and any(action.nargs == "+" for action in declared)):
            self.options.insert(0, ["-o", self.inputs.pop()])
            self.renamed.append("OUT is now -o OUT")

    def _read_flag(self, word: str, queue: deque[str]) -> None:
        flag, equals, value = word.partition("=")
        new = self.old.get(flag)
        if new is not None and not new.startswith("-"):
            self.renamed.append(f"{flag} {new} is now the input {new}")
            self.by_flag[new] += [value] if equals else _taken(queue, 1)
            return
        if new is not None:
            self.renamed.append(f"{flag} is now {new}")
            flag, word = new, f"{new}{equals}{value}"
        action = self._action(flag)
        if action is None and self.takes_overrides:
            self.overrides += [word, *([] if equals else _taken(queue, 1))]
        else:
            attached = equals or (not word.startswith("--") and len(word) > 2)
            most = 0 if attached else _most_values(action)
            self.options.append([word, *_taken(queue, most)])

    def _action(self, flag: str) -> argparse.Action | None:
        """Find the action of a flag, which may be cut short; None where there is no such flag."""
        if not flag.startswith("--"):
            return self.actions.get(flag[:2])
        known = [name for name in self.actions if name == flag]
        known = known or [name for name in self.actions if name.startswith(flag)]
        return self.actions[known[0]] if len(known) == 1 else None


def _is_flag(word: str) -> bool:
    return FLAG.match(word) is not None


def _most_values(action: argparse.Action | None) -> int:
    """Largest number of values that argparse gives to an option; one of a flag it does not know."""
    if action is None or action.nargs is None:
        return 1
    return action.nargs if isinstance(action.nargs, int) else sys.maxsize


def _taken(queue: deque[str], most: int) -> list[str]:
    """Take up to so many words that are no flags from the front of a queue."""
    taken: list[str] = []
    while queue and len(taken) < most and not _is_flag(queue[0]):
        taken.append(queue.popleft())
    return taken
