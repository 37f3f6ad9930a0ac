"""What the demo says, in 80 columns, and whether it kept what it promised."""

from __future__ import annotations

import sys
import textwrap

WIDTH = 80
LABEL_WIDTH = 18


class Terminal:
    """Prints as it goes; remembers the promises that were not kept."""

    def __init__(self) -> None:
        self._promises = 0
        self._broken: list[str] = []
        # A terminal that cannot show a character is no reason to fail.
        sys.stdout.reconfigure(errors="replace")

    def section(self, title: str) -> None:
        print(f"\n{title}\n{'-' * len(title)}", flush=True)

    def line(self, text: str = "") -> None:
        """A paragraph of its own."""
        print(textwrap.fill(text, WIDTH), flush=True)

    def fact(self, label: str, value: object) -> None:
        """One labelled figure; a long value goes on under itself."""
        print(
            textwrap.fill(
                str(value),
                WIDTH,
                initial_indent=f"  {label:<{LABEL_WIDTH}}",
                subsequent_indent=" " * (LABEL_WIDTH + 2),
                break_on_hyphens=False,
            ),
            flush=True,
        )

    def link(self, label: str, url: str) -> None:
        """An address on a line of its own, never broken, so that it can be copied."""
        print(f"  {label:<10}{url}", flush=True)

    def quote(self, text: str) -> None:
        """Somebody else's text, line by line, none of it left out."""
        for row in text.splitlines():
            for part in textwrap.wrap(row, WIDTH - 2) or [""]:
                print(f"| {part}".rstrip())

    def promise(self, text: str, *, kept: bool) -> None:
        """A statement the demo stands for: said either way, counted if broken."""
        self._promises += 1
        if not kept:
            self._broken.append(text)
        self.fact("ok" if kept else "NOT SO", text)

    def conclude(self) -> bool:
        """Say how many promises were kept; whether all were."""
        self.section("Result")
        kept = self._promises - len(self._broken)
        self.line(f"{kept} of {self._promises} promises kept.")
        for text in self._broken:
            self.fact("NOT SO", text)
        return not self._broken
