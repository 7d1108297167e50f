"""The story of one run as its events tell it, or as ComfyUI's history does."""

from typing import Any

from proxy.engine.chronicle import Chronicle

ERROR = ("execution_error", {"exception_type": "RuntimeError", "exception_message": "no reason given"})
SUCCESS = ("execution_success", {"timestamp": 2})


def heard(*events: tuple[str, Any]) -> Chronicle:
    chronicle = Chronicle()
    for kind, data in (("execution_start", {"timestamp": 1}), *events):
        chronicle.note(kind, data, None)
    return chronicle


def entry(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"status": {"status_str": "error", "messages": [list(message) for message in messages]}}


def test_an_error_is_known_by_its_event_or_by_history_alone() -> None:
    assert heard(ERROR).error == ERROR[1]
    assert heard(SUCCESS).error is None
    unheard = Chronicle()
    unheard.remember(entry(("execution_start", {}), ERROR))
    assert unheard.error == ERROR[1]


def test_the_last_words_are_those_that_its_client_cannot_have_heard() -> None:
    assert heard(ERROR).last_words() is None
    kept_back = heard(ERROR)
    kept_back.kept_back = True
    assert kept_back.last_words() == ERROR
    unheard = heard()
    unheard.remember(entry(ERROR))
    assert unheard.last_words() == ERROR


def test_a_run_that_is_repeated_leaves_nothing_of_the_first() -> None:
    again = heard(ERROR)
    again.kept_back = True
    again.remember(entry(ERROR))
    for kind, data in (("execution_start", {}), SUCCESS):
        again.note(kind, data, None)
    assert again.error is None
    assert again.last_words() is None
    shown = again.entry([])
    assert shown is not None
    assert shown["status"]["status_str"] == "success"
