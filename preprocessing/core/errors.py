"""Errors that are the input's fault, told to the user in one line."""


class InputError(ValueError):
    """Error of the input: something that was given cannot be used.

    The message is one line: what was got, what was expected, and which file.

    Example:
        >>> try:
        ...     fn.Cohort.open("nowhere")
        ... except fn.InputError as error:
        ...     print(error)
        not a cohort folder (no dataset_description.json): nowhere
    """
