# SPDX-License-Identifier: Apache-2.0
"""What the documents show in a block of its own: indented lines of Markdown, displays of man pages."""

import dataclasses
import glob
import os
import re

INDENT = "    "


@dataclasses.dataclass(frozen=True)
class Block:
    document: str  # from the root of the repository
    line: int
    lines: tuple  # of the block, without their indentation

    def __str__(self):
        return f"{self.document}:{self.line}: {self.lines[0]}"


def of_markdown(document, text):
    """A block ends at a blank line: what a program printed stands apart from the next command."""
    lines, start, fenced, before = text.splitlines() + [""], None, False, ""
    for index, line in enumerate(lines):
        if line.startswith("```"):
            fenced = not fenced
        indented = line.startswith(INDENT) and line.strip() and not fenced
        # Indented lines within a paragraph or a list's item are its continuation.
        if indented and start is None and not before.strip():
            start = index
        if start is not None and not indented:
            yield Block(document, start + 1, tuple(l[len(INDENT):] for l in lines[start:index]))
            start = None
        before = line if start is None else ""


def of_man_page(document, text):
    for number, line in enumerate(text.splitlines(), 1):
        display = re.match(r"\.D[1l] (.*)", line)
        if display:
            yield Block(document, number, (display.group(1),))


def of_repository(root):
    def documents(pattern):
        return sorted(os.path.relpath(path, root) for path in glob.glob(os.path.join(root, pattern)))

    for pattern, read in [("*.md", of_markdown), ("docs/*.md", of_markdown),
                          ("docs/man/*.[0-9]", of_man_page)]:
        for document in documents(pattern):
            with open(os.path.join(root, document), encoding="utf-8") as file:
                yield from read(document, file.read())


def command(line):
    """The line without its comment."""
    return re.sub(r"\s+#.*", "", line).strip()
