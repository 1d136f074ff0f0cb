"""Text from elsewhere, as it may be shown."""

import pytest

from stages.errors import SHOWN, printable, unknown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café 猫 🐈", "café 猫 🐈"),
        ("\x1b]0;mine\x07\x1b[2J", r"\x1b]0;mine\x07\x1b[2J"),
        ("two\r\nlines", r"two\r\nlines"),
        ("\u202egpj.exe", r"\u202egpj.exe"),  # written from right to left
        ("\udce9t\udce9", r"\udce9t\udce9"),  # bytes of a file name that are not UTF-8
        ("", ""),
    ],
)
def test_nothing_in_foreign_text_is_obeyed(text, shown):
    assert printable(text) == shown


def test_a_name_that_there_is_not_is_foreign_text_too_and_those_there_are_no_endless_list():
    assert str(unknown("model", "\x1b[2J", ["small"])) == r"There is no model named '\x1b[2J'; known: small."
    many = [f"artifact {number:02}" for number in range(SHOWN + 7)]
    assert str(unknown("run", "x", many)).endswith(f", {many[SHOWN - 1]} and 7 more.")
    assert len(str(unknown("model", "small" * 1_000_000, ["small"]))) < 200


def test_foreign_text_is_short_whatever_it_is_made_of():
    assert printable("a" * 200) == "a" * 200
    assert printable("a" * 10_000_000) == "a" * 197 + "..."
    assert printable("\x00" * 100, limit=20) == r"\x00\x00\x00\x00" + "\\..."
