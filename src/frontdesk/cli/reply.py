"""Showing an answer while it comes: on a terminal as markdown, elsewhere as the text it is."""

import itertools
import sys
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, Self, TextIO

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

from frontdesk.cli.page import Trouble, clean

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionChunk

FRAMES_PER_SECOND = 12
LONG = 8_000
"""Characters from which an unfinished block is drawn as bare text: highlighting all of it each frame would be slow."""

Kind = Literal["reasoning", "text"]


@dataclass(frozen=True, slots=True)
class Piece:
    kind: Kind
    text: str


def pieces(chunks: "Iterable[ChatCompletionChunk]") -> Generator[Piece, None, None]:
    """What the agent thinks and says. Raises Trouble if the answer does not come to its end."""
    reason = None
    for chunk in chunks:
        for choice in chunk.choices:
            extra = choice.delta.model_extra or {}
            if thought := extra.get("reasoning_content") or extra.get("reasoning"):
                yield Piece("reasoning", str(thought))
            if text := choice.delta.content or choice.delta.refusal:
                yield Piece("text", text)
            reason = choice.finish_reason or reason
    if reason is None:
        raise Trouble("The answer was cut off: the connection ended early.", "What came before it is above.")
    if reason in ("length", "content_filter"):
        why = "it reached the limit of its length" if reason == "length" else "a content filter stopped it"
        raise Trouble(f"The answer is not complete: {why}.")


class Display(Protocol):
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def add(self, piece: Piece) -> None: ...


class Plain:
    """The text to stdout as it comes, the reasoning to stderr."""

    def __init__(self, text: TextIO | None = None, reasoning: TextIO | None = None) -> None:
        self._streams = {"text": text or sys.stdout, "reasoning": reasoning or sys.stderr}
        self._kind: Kind | None = None
        self._ended = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end_line()

    def add(self, piece: Piece) -> None:
        if piece.kind != self._kind:
            self._end_line()
            self._kind = piece.kind
        stream = self._streams[piece.kind]
        stream.write(clean(piece.text) if stream.isatty() else piece.text)
        stream.flush()
        self._ended = piece.text.endswith("\n")

    def _end_line(self) -> None:
        if self._kind and not self._ended:
            self._streams[self._kind].write("\n")
            self._streams[self._kind].flush()
        self._ended = True


class Page(Live):
    """Prints each block of an answer for good when it is finished, and redraws only the one which still grows.

    That one is cut to the screen while it grows, and printed whole at its end: nothing flickers, nothing is lost.
    """

    def __init__(self, console: Console) -> None:
        self._tail = ""
        self._kind: Kind = "text"
        self._printed: Kind | None = None
        dots = "dots" if console.encoding.startswith("utf") else "line"
        self._spinner = Spinner(dots, Text("Ctrl-C stops", "dim"), style="dim")
        super().__init__(
            console=console, transient=True, refresh_per_second=FRAMES_PER_SECOND, vertical_overflow="crop"
        )

    def __exit__(self, *exception: object) -> None:
        try:
            self._settle(len(self._tail))
        finally:
            self.stop()

    def add(self, piece: Piece) -> None:
        if piece.kind != self._kind:
            self._settle(len(self._tail))
            self._kind = piece.kind
        with self._lock:
            self._tail += clean(piece.text)
        if "\n" in piece.text:
            self._settle(finished(self._kind, self._tail))

    def get_renderable(self) -> RenderableType:
        if not self._tail.strip():
            return self._spinner
        return Group(Tail(self._growing()), Text(""), self._spinner)

    def _settle(self, end: int) -> None:
        """Print the first `end` characters for good. The frame goes out in one write, so nothing is seen twice."""
        with self._lock, self.console:
            block, self._tail = self._tail[:end], self._tail[end:]
            if block.strip():
                self.console.print(self._drawn(block))
                self._printed = self._kind
            self.refresh()

    def _drawn(self, text: str) -> RenderableType:
        """A block or several, with a blank line between them and after what was printed before."""
        apart = self._printed is not None and (self._kind == "text" or self._printed != self._kind)
        parts = [Trimmed(drawn(self._kind, block)) for block in (blocks(text) if self._kind == "text" else [text])]
        spaced = [line for part in parts for line in (Text(""), part)]
        return Group(*spaced[0 if apart else 1 :])

    def _growing(self) -> RenderableType:
        return Text(self._tail[-LONG:]) if len(self._tail) > LONG else self._drawn(self._tail)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """Something without its blank first and last lines: tables and code have some, paragraphs have none."""

    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.whole, options.update(height=None), pad=False)
        inked = [number for number, line in enumerate(lines) if "".join(part.text for part in line).strip()]
        for line in lines[inked[0] : inked[-1] + 1] if inked else []:
            yield from line
            yield Segment.line()


@dataclass(frozen=True, slots=True)
class Tail:
    """The last lines of something, as many as fit on the screen above the line that says how to stop."""

    whole: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.whole, options.update(height=None), pad=False)
        for line in lines[-max(1, console.height - 4) :]:
            yield from line
            yield Segment.line()


def drawn(kind: Kind, text: str) -> RenderableType:
    if kind == "reasoning":
        return Padding(Text(text.strip("\n"), "dim italic"), (0, 0, 0, 2))
    return markdown(text)


PARSER = MarkdownIt().enable("strikethrough").enable("table").disable(["html_block", "html_inline"])
"""Without HTML: a tag in an answer is text that somebody wants to see, and Rich would leave it out."""


def markdown(text: str) -> Markdown:
    page = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    page.parsed = PARSER.parse(text)
    return page


def blocks(text: str) -> list[str]:
    """Markdown, cut between its outermost blocks: paragraphs, lists, tables, code."""
    starts = [token.map[0] for token in PARSER.parse(text) if token.map and token.level == 0]
    lines = text.split("\n")
    cuts = [0, *(sum(len(line) + 1 for line in lines[:start]) for start in starts[1:]), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(cuts)]


def finished(kind: Kind, text: str) -> int:
    """How much of a growing text is certain: whole lines of reasoning; of an answer, all blocks but the last."""
    whole = text.rfind("\n") + 1
    return whole if kind == "reasoning" else whole - len(blocks(text[:whole])[-1])
