#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a source keeps to itself has a name of its own in its target.

    anonymous_names.py <root of the repository> <compile_commands.json of a build file by file>

The sanitizers' presets compile a target's files several at a time, and which ones together changes
with each file that is added: a name that two files have would break somebody else's change. Prints
one line `file:line: rule` for each violation and exits 1 if there is one.
"""

import json
import os
import re
import sys

# What clang-format leaves in the first column is a declaration of the namespace.
DECLARATIONS = [
    re.compile(r"(?:class|struct|union|enum class|enum) (?:\[\[\w+\]\] )?(\w+)\b(?!.*;$)"),
    re.compile(r"using (\w+) ="),
    re.compile(r"#\s*define (\w+)"),
    re.compile(r"(?!struct |class |union |enum |using |namespace |template|return|static_assert|TEST"
               r"|INSTANTIATE|MATCHER)"
               r"[\w:<>,&*\s\[\]]*?[\w>&*\]] [&*]*(\w+)(?:\[[^\]]*\])*(?:\(| = |\{|;)"),
]


def names(text):
    """(name, line number, line) of what `text` declares in anonymous namespaces, and of its macros."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if line == "namespace {":
            inside = True
        elif line == "}  // namespace":
            inside = False
        elif line[:1] == "#" or inside and not line[:1].isspace():
            for declaration in DECLARATIONS:
                found = declaration.match(line)
                if found:
                    yield found.group(1), number, line
                    break


def targets(root, database):
    """Target: its sources, from the top of the repository."""
    found = {}
    for entry in database:
        target = re.search(r"CMakeFiles/([^/]+)\.dir/", entry["command"])
        name = os.path.relpath(entry["file"], root)
        if target and not name.startswith(".."):
            found.setdefault(target.group(1), []).append(name)
    return found


def check(root, database):
    for target, sources in sorted(targets(root, database).items()):
        first = {}
        for source in sorted(sources):
            with open(os.path.join(root, source), encoding="utf-8") as file:
                for name, line, text in names(file.read()):
                    other, there = first.setdefault(name, (source, text))
                    # The same alias twice is one.
                    if other != source and not (text == there and text.startswith("using ")):
                        yield source, line, f"{name} is in {other}, too, of the same target {target}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], encoding="utf-8") as file:
        violations = list(check(os.path.realpath(sys.argv[1]), json.load(file)))
    for name, line, rule in violations:
        print(f"{name}:{line}: {rule}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
