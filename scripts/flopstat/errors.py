"""Errors that a user can mend."""


class InputError(ValueError):
    """Wrong input: one line that says what, where and the remedy. The command line turns it into exit code 2."""


class PoolError(RuntimeError):
    """The store can't be used now: one line that says which folder, why, and the remedy."""


class TrialError(RuntimeError):
    """A rehearsal that failed: one line that says what, and names the log that says why."""


def printable(text: str) -> str:
    """Text, maybe of several lines, with whatever else can't be printed escaped: nothing in a file or a name steers a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
