"""Ends of a command that are no fault of ours: of the input, told in one line, or of a signal."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Error of the input: something that was given cannot be used.

    The message is one line: what was got, what was expected, and which file.

    Example:
        >>> try:
        ...     fn.Cohort.open("nowhere")
        ... except fn.InputError as error:
        ...     print(error)
        no such file or folder: nowhere
    """


class Stopped(Exception):
    """A signal stopped a command whose state is saved: the same command goes on.

    Args:
        code: exit code of the command.

    Attributes:
        code: likewise.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped with code {code}")
        self.code = code


@contextmanager
def making_sense_of(path: Path) -> Iterator[None]:
    """Turn what goes wrong with the content of a file or folder of ours into an `InputError`.

    For content that was read, such as a column that is not there or a word in the place of a
    number; not for work on brains, where the same errors would be our fault.

    Raises:
        InputError: with the path, in the place of the error.
    """
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"damaged, or of another release ({reason:.200}): {path}") from error
