"""The conformance tests stand elsewhere: pytest explains their assertions only if it is told of them."""

import pytest

pytest.register_assert_rewrite("tests.executors.conformance")
