#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prose in the repository's Markdown is wrapped.

    prose.py <root of the repository>

Prints one line `file:line: rule` for each violation and exits 1 if there is one.
"""

import os
import sys

COLUMNS = 100
UNBREAKABLE = ("|", "    ")  # rows of tables; commands and pictures


def markdown(root):
    """The names of the repository's Markdown files; what a build left is not looked at."""
    for directory, below, files in os.walk(root):
        below[:] = sorted(d for d in below if d != "build" and not d.startswith("."))
        for file in sorted(files):
            if file.endswith(".md"):
                yield os.path.relpath(os.path.join(directory, file), root)


def too_wide(text):
    """The numbers of the lines of `text` that a line break would make shorter."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif (len(line) > COLUMNS and not fenced and not line.startswith(UNBREAKABLE)
              and " " in line.strip()):
            yield number


def check(root):
    for name in markdown(root):
        with open(os.path.join(root, name), encoding="utf-8") as file:
            for number in too_wide(file.read()):
                yield name, number, f"prose is wrapped at {COLUMNS} columns"


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: prose.py <root of the repository>")
    violations = list(check(sys.argv[1]))
    for name, line, rule in violations:
        print(f"{name}:{line}: {rule}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
