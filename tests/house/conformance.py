#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/conformance.md against the specification's clauses and against the labels of the tests.

    conformance.py <root of the repository>

The list has a section for each clause of virtio_msg_clauses.txt, in their order, and in it an item
for each statement. An item names tests, `Suite.Name`, or says why there is none ("Reason:"). A test
that a section names carries the clause's label, // [role:clause], in the comment above it, and a
label names a clause whose section names the test. Prints one line for each violation, exits 1.
"""

import os
import re
import sys

LIST = "docs/conformance.md"
CLAUSES = "tests/house/virtio_msg_clauses.txt"
# Labels of virtio's own chapters, which are not listed.
OTHER_CHAPTERS = ("Virtqueues / ", "Device Types / ", "Basic Facilities of a Virtio Device / ")

SECTION = re.compile(r"### ((?:bus|device|driver):.+)")
ITEM = re.compile(r"(\d+)\. ")
TEST_NAME = re.compile(r"`([A-Za-z]\w*\.[A-Za-z]\w*)`")
LABEL = re.compile(r"\[((?:bus|device|driver):[^\]]+)\]")
TEST = re.compile(r"(?:TEST|TEST_F|TEST_P|TYPED_TEST)\((\w+),\s*(\w+)?")


def read_clauses(text):
    """{label: number of statements}, in order."""
    clauses = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            count, label = line.split(" ", 1)
            clauses[label] = int(count)
    return clauses


def read_list(text):
    """[(label, line, [items' texts])]."""
    sections = []
    for number, line in enumerate(text.splitlines(), 1):
        section = SECTION.fullmatch(line)
        item = ITEM.match(line)
        if section:
            sections.append((section.group(1), number, []))
        elif line.startswith("#"):
            sections.append((None, number, []))
        elif sections and sections[-1][0]:
            items = sections[-1][2]
            if item:
                items.append(line)
            elif line and items:
                items[-1] += " " + line.strip()
    return [section for section in sections if section[0]]


def read_labels(name, text):
    """The tests of a file, [(test, line, [labels])], and lines of labels that are above no test."""
    tests, stray = [], []
    labels, label_line = [], 0
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if stripped.startswith("//"):
            found = [label for label in LABEL.findall(stripped)
                     if not label.split(":", 1)[1].startswith(OTHER_CHAPTERS)]
            if found and not labels:
                label_line = number
            labels += found
            continue
        test = TEST.match(line)
        if test:
            second = test.group(2) or TEST.match(line + lines[number].strip()).group(2)
            tests.append((f"{test.group(1)}.{second}", number, labels))
        elif labels:
            stray.append((name, label_line, "a label above what is no test"))
        labels = []
    return tests, stray


def check(clauses, listed, tests):
    """Violations. `tests`: {name: (file, line, labels)}."""
    where = {label: number for label, number, _ in listed}
    for label in clauses:
        if label not in where:
            yield LIST, 1, f"no section for the clause {label}"
    order = list(clauses)
    present = [label for label, _, _ in listed if label in clauses]
    if present != [label for label in order if label in where]:
        yield LIST, 1, "the sections are not in the specification's order, or one is there twice"
    named = {}
    for label, number, items in listed:
        if label not in clauses:
            yield LIST, number, f"the specification has no clause {label}"
            continue
        if [ITEM.match(item).group(1) for item in items] != [
                str(i + 1) for i in range(clauses[label])]:
            yield LIST, number, f"{label} has {clauses[label]} statements, one item each"
        for item in items:
            names = TEST_NAME.findall(item)
            if not names and "Reason:" not in item:
                yield LIST, number, f"neither a test nor a reason: {label}, {item[:40]}"
            for name in names:
                named.setdefault(label, set()).add(name)
                if name not in tests:
                    yield LIST, number, f"{label}: there is no test {name}"
                elif label not in tests[name][2]:
                    file, line, _ = tests[name]
                    yield file, line, f"{name} lacks the label [{label}] that {LIST} promises"
    for name, (file, line, labels) in tests.items():
        for label in labels:
            if label not in clauses:
                yield file, line, f"[{label}] is no clause ({CLAUSES} has them)"
            elif name not in named.get(label, ()):
                yield file, line, f"{LIST} does not name {name} under {label}"


def read(root, name):
    with open(os.path.join(root, name), encoding="utf-8") as file:
        return file.read()


def main(root):
    violations = []
    tests = {}
    for directory, below, files in sorted(os.walk(os.path.join(root, "tests"))):
        below[:] = [d for d in below if not d.startswith((".", "__"))]
        for file in sorted(files):
            if not file.endswith((".cc", ".h")):
                continue
            name = os.path.relpath(os.path.join(directory, file), root)
            found, stray = read_labels(name, read(root, name))
            violations += stray
            for test, line, labels in found:
                tests[test] = (name, line, labels)
    violations += check(read_clauses(read(root, CLAUSES)), read_list(read(root, LIST)), tests)
    for name, line, rule in violations:
        print(f"{name}:{line}: {rule}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
