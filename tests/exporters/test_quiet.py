from __future__ import annotations

import logging
import os
import sys
import threading
import warnings

import pytest

from exporters.quiet import captured_output


def test_chatter_is_kept_off_and_other_words_are_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_output() as captured:
        os.write(
            2, b"I0000 00:00:1.0 1 port.cc:153] oneDNN custom operations are on.\nsomething went wrong\n"
        )
        warnings.warn("not shown", UserWarning, stacklevel=1)
    assert capfd.readouterr() == ("", "something went wrong\n")
    assert "port.cc" in captured.text
    assert captured.said() == "something went wrong"


def test_what_failed_code_said_is_left_to_the_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), captured_output() as captured:
        sys.stderr.write("native words\n")
        raise ValueError("no")
    assert captured.said() == "native words"
    assert capfd.readouterr() == ("", "")


def test_other_threads_still_reach_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with captured_output() as captured:
        sys.stderr.write("I0000 mine\n")
        other = threading.Thread(target=lambda: sys.stderr.write("live display\n"))
        other.start()
        other.join()
    assert capsys.readouterr().err == "live display\n"
    assert "mine" in captured.text and "live" not in captured.text
    assert (sys.stdout, sys.stderr) == before


def test_a_log_handler_made_meanwhile_outlives_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    with captured_output():
        handler = logging.StreamHandler()
    logger = logging.Logger("made meanwhile")
    logger.addHandler(handler)
    logger.warning("still heard")
    assert capsys.readouterr().err == "still heard\n"
