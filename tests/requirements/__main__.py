"""Writes docs/compatibility.md from the manifest and the tests, or checks that it is as it would be written."""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.requirements.manifest import AREAS, REQUIREMENTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
HEAD = """# Compatibility

What Frontdesk promises, where each promise comes from, and where it falls short. Generated from
`tests/requirements/` by `make docs`: every line is shown by the tests it names, which run against a real Letta server
or a real socket; `make check` fails when this page and the tests disagree.
"""


def marked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The promises a test module shows, each with the name of the test."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            match mark:
                case ast.Call(func=ast.Name(id="requirement"), args=names):
                    yield from ((str(name.value), node.name) for name in names if isinstance(name, ast.Constant))
                case _:
                    pass


def shown() -> dict[str, list[str]]:
    """Promise → the tests which show it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, test in marked(ast.parse(path.read_text())):
            found[name].append(test)
    return found


def problems(tests: dict[str, list[str]]) -> list[str]:
    unknown = [f"no such requirement: {name} (in {tests[name][0]})" for name in sorted(set(tests) - set(REQUIREMENTS))]
    return unknown + [f"no test shows: {name}" for name in sorted(set(REQUIREMENTS) - set(tests))]


def page(tests: dict[str, list[str]]) -> str:
    lines = [HEAD]
    for area, entries in AREAS.items():
        lines += [f"\n## {area}\n", "| promise | source | shown by |", "|---|---|---|"]
        for name, entry in entries.items():
            promise = entry.text + (f" **Falls short:** {entry.divergence}" if entry.divergence else "")
            source = f"[link]({entry.source})" if entry.source.startswith("http") else entry.source
            names = [test.removeprefix("test_").replace("_", " ") for test in tests[name]]
            proof = names[0] + (f" (+{len(names) - 1})" if len(names) > 1 else "")
            lines.append(f"| {promise} | {source} | {proof} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    tests = shown()
    if found := problems(tests):
        sys.stderr.write("\n".join(found) + "\n")
        return 1
    if "--write" in sys.argv:
        PAGE.write_text(page(tests))
    elif not PAGE.exists() or PAGE.read_text() != page(tests):
        sys.stderr.write("docs/compatibility.md is out of date: run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
