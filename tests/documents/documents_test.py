#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands that README and docs show.

    documents_test.py <root of the repository> <directory of the programs>
"""

import sys
import unittest

import blocks
import emulation
import shown

ROOT, PROGRAMS = ".", "build/release/bin"


class Extraction(unittest.TestCase):
    def extract(self, text):
        return [(block.line, block.lines) for block in blocks.of_markdown("a.md", text)]

    def test_indented_blocks(self):
        self.assertEqual(self.extract("Text:\n\n    one\n    two # 2\n\n    three\nmore\n"),
                         [(3, ("one", "two # 2")), (6, ("three",))])

    def test_what_is_no_block(self):
        self.assertEqual(self.extract("* item\n    continued\n\n```\n\n    fenced\n```\n"), [])

    def test_displays_of_man_pages(self):
        found = list(blocks.of_man_page("a.8", ".Sh X\n.Dl vmsgctl list\ntext\n"))
        self.assertEqual(found, [blocks.Block("a.8", 2, ("vmsgctl list",))])

    def test_comments(self):
        self.assertEqual(blocks.command("a b   # c"), "a b")
        self.assertEqual(blocks.command("a '#b'"), "a '#b'")


class Documents(unittest.TestCase):
    def test_each_block_is_known_and_each_known_block_is_shown(self):
        found = {(block.document, blocks.command(block.lines[0]) or block.lines[0]): block
                 for block in blocks.of_repository(ROOT)}
        known = {(document, first) for document, of in shown.SHOWN.items() for first in of}
        for key in sorted(set(found) - known):
            self.fail(f"{found[key]}: run it, or say why not, in tests/documents/shown.py")
        for document, first in sorted(known - set(found)):
            self.fail(f"tests/documents/shown.py: {document} no longer shows: {first}")

    def test_the_commands_work(self):
        for block in blocks.of_repository(ROOT):
            how = shown.SHOWN.get(block.document, {}).get(blocks.command(block.lines[0]))
            if not isinstance(how, shown.Run):
                continue
            with self.subTest(str(block)), emulation.Emulation(ROOT, PROGRAMS, how.served) as xen:
                for line in block.lines:
                    before = how.before.get(blocks.command(line))
                    if before:
                        xen.run(before)
                    xen.run(line)

    def test_a_command_that_fails_is_noticed(self):
        with emulation.Emulation(ROOT, PROGRAMS, served=False) as xen:
            with self.assertRaisesRegex(AssertionError, "status 3"):
                xen.run("exit 3")
            with self.assertRaisesRegex(AssertionError, "instead of 'ready'"):
                xen.run("echo no &")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    PROGRAMS, ROOT = sys.argv.pop(), sys.argv.pop()
    unittest.main()
