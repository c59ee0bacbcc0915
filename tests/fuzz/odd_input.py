"""Input that a hostile or broken peer, or a careless caller, could hand over."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

MARKUP = (
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "[red]red[/red]",
    "[/]",
    "${jndi:x}",
    "%00%0d%0aX-Forged:%201",
    "a\r\nX-Forged: 1",
    "{0.__class__}",
    "%s%n",
)
EDGES = (
    "",
    " ",
    "\t",
    "\0",
    "\x7f",
    "\x85",
    "\ud800",
    "\udc80",
    "\u202e",
    "\ufeff",
    "\U0010ffff",
    "\u0661\u0662",
    "nan",
    "-1",
    "9" * 5000,
    "a" * 257,
    "a" * 9000,
)

text: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(MARKUP + EDGES),
    st.text(max_size=40),
    st.text(st.characters(max_codepoint=0x2FF), max_size=40),
    # st.text makes no lone surrogates, of which JSON and HTTP headers can be full.
    st.text(st.sampled_from("a\ud800\udfff\udc80\x00\r\n\x1b<&\"'%[]/:@?#"), max_size=12),
)
ascii_text: st.SearchStrategy[str] = st.text(
    st.characters(min_codepoint=32, max_codepoint=126), max_size=60
)
scalar: st.SearchStrategy[Any] = st.one_of(
    text,
    ascii_text,
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400)]),  # no float can hold them
    st.floats(),
    st.binary(max_size=20),
)
anything: st.SearchStrategy[Any] = st.one_of(
    scalar, st.lists(scalar, max_size=3), st.dictionaries(scalar, scalar, max_size=3)
)
json_value: st.SearchStrategy[Any] = st.recursive(
    st.one_of(text, ascii_text, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(text | ascii_text, inner, max_size=4)
    ),
    max_leaves=8,
)
