"""Progress of long loops: few plain lines in a log, and the same items."""

import io

import pytest

from medbench.jobs import progress


def test_a_long_loop_says_little_and_hands_on_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve hours of a step a second, half of them done before."""
    clock = [0.0]
    monkeypatch.setattr(progress, "_said", [])
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    seen = 0
    for _ in progress.track(range(21600), "adapt d/m/lora, steps", 43200, 21600):
        seen += 1
        clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert seen == 21600 and lines[0] == "adapt d/m/lora, steps: going on after 21600 of 43200"
    assert 15 <= len(lines) <= progress.LINES + 2
    assert lines[1] == "adapt d/m/lora, steps: 22680 of 43200 (52%), 1/s, 342 min left"


def test_a_short_loop_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "_said", [])
    assert list(progress.track("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_many_short_loops_say_something(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve epochs of five steps a second apart: a line at least every twelve seconds."""
    clock = [0.0]
    monkeypatch.setattr(progress, "_said", [])
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    for _ in range(12):
        for _ in progress.track(range(5), "epoch", 5):
            clock[0] += 1.0
    assert 4 <= len(capsys.readouterr().err.splitlines()) <= 6


class Terminal(io.StringIO):
    """What is written to a screen."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    assert list(progress.track("abc", "letters", 6, 3)) == ["a", "b", "c"]
    assert "letters" in screen.getvalue() and "6/6" in screen.getvalue()
