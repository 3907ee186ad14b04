"""Markdown as rows of a terminal."""

from __future__ import annotations

import pytest

from server.cli.markdown import Painter


def rows(source: str, width: int = 80) -> list[str]:
    return [row.text for row in Painter(width).markdown(source)]


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ("[a link](https://example.org/x)", ["a link (https://example.org/x)"]),
        ("<https://example.org>", ["https://example.org"]),
        ("<ada@example.org>", ["ada@example.org"]),
        ("[https://good.example](https://evil.example)", ["https://good.example (https://evil.example)"]),
        ("![a cat](https://example.org/cat.png)", ["[image: a cat] (https://example.org/cat.png)"]),
        ("Vec<T> and <b>bold</b> and [bold]red[/bold]", ["Vec<T> and <b>bold</b> and [bold]red[/bold]"]),
        ("<script>\nalert(1)\n</script>", ["  <script>", "  alert(1)", "  </script>"]),
        ("a line\nand another", ["a line", "and another"]),
        ("# One\n\n## Two", ["One", "", "Two"]),
        ("- a\n- b\n\n\n\nc", [" • a", " • b", "", "c"]),
        ("a\u2028b\x85c\td", ["a", "b", "c       d"]),
        ("x\x1b]0;t\x07y\x9b1mz", ["x]0;ty1mz"]),
        ("", []),
    ],
)
def test_what_is_said_is_shown(source: str, drawn: list[str]) -> None:
    assert rows(source) == drawn


def test_code_keeps_its_lines_for_copying() -> None:
    long = "x = " + "'long' + " * 20
    assert rows(f"```python\n{long}\n\n  y\n```") == [f"  {long.rstrip()}", "", "    y"]
    nested = rows(f"- item\n  ```\n  {long}\n  ```", 40)
    assert max(map(len, nested)) <= 40
    assert "".join(row.strip() for row in nested[1:]).replace(" ", "") == long.replace(" ", "")


@pytest.mark.parametrize("width", [1, 5, 20, 60, 200])
def test_any_width_will_do(width: int) -> None:
    from server.agents.offline import samples

    drawn = rows(samples.MARKDOWN, width)
    assert drawn
    assert not any(row.endswith(" ") for row in drawn)
