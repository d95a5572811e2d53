"""Errors that a user can mend."""


class InputError(ValueError):
    """Wrong input: one line that says what, where and the remedy. The command line turns it into exit code 2."""


class PoolError(RuntimeError):
    """The store can't be used now: one line that says which folder, why, and the remedy."""
