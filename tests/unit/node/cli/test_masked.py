"""Secrets never leave by `rtnode config show`."""

from node.cli.settings import masked


def test_the_password_of_a_url_is_masked_wherever_it_stands() -> None:
    shown = masked({"node": {"database_url": "postgresql+pg8000://rt:s3cret@db:5432/rtnode"}})

    assert shown == {"node": {"database_url": "postgresql+pg8000://rt:***@db:5432/rtnode"}}


def test_other_text_numbers_and_lists_stay_as_they_are() -> None:
    value = {"peers": [{"host": "192.0.2.1", "port": 104, "note": "a:b@c"}], "none": None}

    assert masked(value) == value
