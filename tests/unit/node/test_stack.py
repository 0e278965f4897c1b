"""The text that users see of a stack that faulthandler has written."""

from __future__ import annotations

import os

from orchestrator.node.inside import stack

WRITTEN = f"""Thread 0x00007f01 [loader] (most recent call first):
  File "/usr/lib/python3/threading.py", line 5 in wait
Thread 0x00007f02 (most recent call first):
  File "{os.path.dirname(stack.__file__)}/run.py", line 5 in beat

Current thread 0x00007f03 (most recent call first):
  File "/usr/lib/python3/socket.py", line 7 in recv
  File "/jos\\xe9/train.py", line 88 in step
  File "{os.path.dirname(stack.__file__)}/trial.py", line 5 in call
"""


def test_the_main_thread_comes_last_and_internal_frames_are_left_out() -> None:
    assert stack.format_stacks(WRITTEN, ["/jos\u00e9"]) == (
        "Stack of thread loader (most recent call last):\n"
        '  File "/usr/lib/python3/threading.py", line 5, in wait\n'
        "Stack (most recent call last):\n"
        '  File "/jos\u00e9/train.py", line 88, in step\n'
        '  File "/usr/lib/python3/socket.py", line 7, in recv\n',
        "train.py:88",
    )


def test_an_empty_dump_gives_no_text() -> None:
    assert stack.format_stacks("", ["/x"]) == ("", "")


def test_a_process_without_a_handler_is_recognised() -> None:
    assert not stack.has_handler(os.getpid())
    assert not stack.has_handler(2**22 + 1)  # no such process
