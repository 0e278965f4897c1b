"""Text from outside, made fit to be kept: valid Unicode, not too long, and without what a terminal has overwritten."""

from __future__ import annotations

_LONGEST_LINE = 2**16  # bytes; what is longer is passed on in pieces


def safe(text: str) -> str:
    r"""The text with each half of a surrogate pair written out, such as \udc80: SQLite takes UTF-8 only."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def shortened(text: str, most: int) -> str:
    """The text, with its middle left out if it has more than `most` characters: it says how many."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}\n  ... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def message_of(error: BaseException, most: int) -> str:
    """The message of an exception, whatever its class does when it is asked."""
    try:
        return shortened(str(error), most)
    except Exception as broken:
        return f"(its message cannot be shown: {type(broken).__name__})"


class VisibleLines:
    """Output as a terminal shows it in the end: of what a progress bar writes on one line, the last state."""

    def __init__(self) -> None:
        self._line = b""  # the last line so far, unless it has been passed on
        self._begun = False  # a part of it has
        self.changing = False  # it is being overwritten

    def add(self, data: bytes) -> bytes:
        """The lines that are complete now."""
        complete, end, line = (self._line + data).rpartition(b"\n")
        if end:
            if b"\r" in complete:
                first, *others = complete.split(b"\n")
                complete = b"\n".join([_visible(first, self._begun), *(_visible(each, False) for each in others)])
            self._begun = self.changing = False
        if b"\r" in line:
            self.changing = True
            line = _last_state(line, self._begun)
        self._line = line
        passed_on = complete + end
        return passed_on if len(self._line) <= _LONGEST_LINE else passed_on + self.rest()

    def rest(self) -> bytes:
        """What there is of the last line. If it is overwritten later, a carriage return comes before that."""
        line, self._line = self._line, b""
        self._begun = self._begun or bool(line)
        return line


def _visible(line: bytes, begun: bool) -> bytes:
    """A complete line. `begun`: a part of it was passed on before."""
    return _last_state(line.rstrip(b"\r"), begun) if b"\r" in line else line


def _last_state(line: bytes, begun: bool) -> bytes:
    """The last state of a line, with the carriage returns that follow it."""
    text = line.rstrip(b"\r")
    _, overwrites, last = text.rpartition(b"\r")
    return (b"\r" if overwrites and begun else b"") + last + line[len(text) :]
