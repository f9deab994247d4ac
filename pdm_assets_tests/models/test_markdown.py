"""What landed text becomes in Dagster's UI, asked of a Markdown parser: never a picture, a link, HTML or another column."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pdm_assets.models.markdown import table, text

HOSTILE = [
    "<img src=http://evil/x.png onerror=alert(1)>",
    "![x](http://evil/x.png)",
    "[click](http://evil)",
    "http://evil.example/x",
    "www.evil.example",
    "mail@evil.example",
    "<http://evil.example>",
    "a`b ![x](http://evil/x.png)",
    "`` ` ![x](y) ` ``",
    "\\`![x](y)\\`",
    "\\|<b>x</b>",
    "\\\\|<b>x</b>",
    "a|b|<i>c</i>",
    "one\n\n# two\r\n<script>alert(1)</script>",
    "one\u2028| --- |\x0b<b>",
    "&lt;b&gt;",
    "```\nx",
    "*a* ~~b~~",
]
COMMONMARK = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def rendered(markdown: str) -> str:
    """Without what a bare address would become: GitHub's Markdown links those too, outside of code."""
    html = COMMONMARK.render(markdown)
    outside = re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL)
    assert not re.search(r"://|www\.|@", outside, re.IGNORECASE)
    return html


def tags(html: str) -> set[str]:
    return set(re.findall(r"<(\w+)", html))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_shows_as_it_is(hostile):
    assert tags(rendered(f"first; {text(hostile)}; last")) <= {"p", "code"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_cell_stays_one_cell(hostile):
    html = rendered(table(("a", "b"), [(hostile, 1), (2, hostile)]))
    assert tags(html) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert html.count("<td>") == 4


@given(st.text("\\`|*[]()<>!&@:/ w.a\n", max_size=30))
def test_no_combination_of_signs_gets_out(hostile):
    html = rendered(table(("a",), [(hostile,)]))
    assert tags(html) <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert html.count("<td>") == 1
    assert tags(rendered(f"x {text(hostile)}")) <= {"p", "code"}


def test_what_holds_no_sign_stays_plain():
    assert text("volt 24 h mean 170.5, normal 168.0 ± 1.0") == "volt 24 h mean 170.5, normal 168.0 ± 1.0"
