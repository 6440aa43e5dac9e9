#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Wide prose is noticed; what cannot be broken is left alone."""

import os
import tempfile
import unittest

import prose

WIDE = "word " * 20 + "x"  # 101 columns


class Prose(unittest.TestCase):
    def test_wide_lines(self):
        self.assertEqual(list(prose.too_wide(f"{WIDE}\nfits\n* {WIDE}\n")), [1, 3])

    def test_columns_are_characters(self):
        self.assertEqual(list(prose.too_wide("é " * 50)), [])

    def test_what_cannot_be_broken(self):
        for text in [f"    {WIDE}", f"| {WIDE} |", f"```\n{WIDE}\n```", "x" * 101]:
            self.assertEqual(list(prose.too_wide(text)), [], text)
        self.assertEqual(list(prose.too_wide(f"```\nx\n```\n{WIDE}")), [4])

    def test_all_of_the_repository_but_builds(self):
        with tempfile.TemporaryDirectory() as root:
            for name in ["README.md", "docs/a.md", "docs/a.txt", "build/b.md", ".git/c.md"]:
                os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
                with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                    file.write(WIDE)
            self.assertEqual([name for name, _, _ in prose.check(root)], ["README.md", "docs/a.md"])


if __name__ == "__main__":
    unittest.main()
