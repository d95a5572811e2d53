"""Errors that a user can mend."""


class InputError(ValueError):
    """Wrong input: one line that says what, where and the remedy. The command line turns it into exit code 2."""
