"""A multipart body means the same however the network cuts it, and ends when it is not one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import PeerUnreachable
from node.scu.multipart import Parts, boundary_of

MARK = b"frontier"


class Stream:
    """Gives its bytes in pieces of the sizes that it is told."""

    def __init__(self, body: bytes, sizes=(4096,)) -> None:
        self.body, self.sizes, self.calls = body, sizes, 0

    def read1(self, most: int) -> bytes:
        size = min(most, self.sizes[self.calls % len(self.sizes)])
        self.calls += 1
        piece, self.body = self.body[:size], self.body[size:]
        return piece


def parts(stream, *, largest: int = 1 << 20, timeout_s: float = 5.0) -> list[bytes]:
    found = Parts(stream, MARK, timeout_s=timeout_s, largest=largest)
    return [b"".join(bytes(piece) for piece in part) for part in found]


def body(*contents: bytes, headers: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    framed = b"".join(b"--" + MARK + b"\r\n" + headers + b"\r\n" + c + b"\r\n" for c in contents)
    return framed + b"--" + MARK + b"--\r\n"


@settings(max_examples=60, deadline=None)
@given(
    contents=st.lists(
        st.lists(
            st.sampled_from([b"\r\n", b"--", b"frontier", b"--frontie", b"\r\n--front", b"\0"]),
            max_size=6,
        ).map(b"".join),
        max_size=4,
    ).filter(lambda c: not any(b"\r\n--" + MARK in b"\r\n" + one + b"\r\n" for one in c)),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)
def test_a_body_gives_its_parts_however_it_is_cut(contents, sizes) -> None:
    """Contents that look almost like a boundary are the ones that a naive reader loses."""
    assert parts(Stream(body(*contents), sizes)) == contents


def test_parts_without_headers_and_a_preamble_are_read() -> None:
    assert parts(Stream(b"hello\r\n" + body(b"one", headers=b"\r\n"[:0]), (3,))) == [b"one"]


def test_a_part_that_nobody_read_is_passed_over() -> None:
    found = Parts(Stream(body(b"x" * 9000, b"two")), MARK, timeout_s=5, largest=1 << 20)

    (_, second) = [b"".join(map(bytes, part)) if n else b"" for n, part in enumerate(found)]
    assert second == b"two"


@pytest.mark.parametrize("keep", [5, 40, 300, -20, -5])
def test_a_body_that_is_cut_off_is_no_body(keep) -> None:
    with pytest.raises(PeerUnreachable, match="in the middle"):
        parts(Stream(body(b"x" * 500)[:keep]))


@pytest.mark.parametrize(
    ("endless", "words"),
    [
        (b"--frontier\r\n\r\n", "without a boundary"),
        (b"", "without a boundary"),
        (b"--frontier\r\nX-A: ", "no end of its headers"),
    ],
    ids=["part", "preamble", "headers"],
)
def test_what_goes_on_for_ever_is_cut(endless, words) -> None:
    class Endless(Stream):
        def read1(self, most: int) -> bytes:
            return super().read1(most) or b"y" * most

    with pytest.raises(PeerUnreachable, match=words):
        parts(Endless(endless), largest=1 << 20)


def test_a_body_that_drips_is_cut() -> None:
    with pytest.raises(PeerUnreachable, match="too slowly"):
        parts(Stream(body(b"x" * 100_000), (1,)), timeout_s=0.005)


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related;boundary="a b";type="application/dicom"', b"a b"),
        ('multipart/related; type="application/dicom"', None),
        ("application/dicom+json; boundary=abc", None),
        ("", None),
        (f"multipart/related; boundary={'x' * 71}", b"x" * 70),
    ],
)
def test_the_boundary_is_read_from_the_content_type(content_type, boundary) -> None:
    assert boundary_of(content_type) == boundary
