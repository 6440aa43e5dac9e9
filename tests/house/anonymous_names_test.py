#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A name that two sources of a target keep to themselves is noticed, whatever it names."""

import os
import tempfile
import unittest

import anonymous_names


def source(inside, outside=""):
    return f"namespace vmsg {{\nnamespace {{\n\n{inside}\n\n}}  // namespace\n{outside}\n}}  // namespace vmsg\n"


class AnonymousNames(unittest.TestCase):
    def check(self, sources, targets=None):
        with tempfile.TemporaryDirectory() as root:
            database = []
            for name, text in sources.items():
                with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                    file.write(text)
                target = (targets or {}).get(name, "t")
                database.append({"file": os.path.join(root, name),
                                 "command": f"c++ -o CMakeFiles/{target}.dir/{name}.o -c {name}"})
            return [line for _, line, _ in anonymous_names.check(root, database)]

    def test_each_kind(self):
        for declaration in ["constexpr int kSize = 1;", "const char kText[] = {};", "int Count(int a) {",
                            "absl::StatusOr<std::string> Read(int fd) {", "struct Row {", "class Row {",
                            "enum class Kind : int {", "using Row = std::pair<int, int>;",
                            "#define TWICE(x) x x", "std::string* names[3];", "bool ready = false;"]:
            other = declaration.replace("int, int", "int, bool")
            self.assertEqual(self.check({"a.cc": source(declaration), "b.cc": source(other)}), [4],
                             declaration)

    def test_what_is_no_clash(self):
        for declaration in ["using testing::Each;", "  return Count(1);", "TEST(Suite, Name) {",
                            "struct Row;", "using Row = int;", "}", "// int Count(int a) {"]:
            self.assertEqual(self.check({"a.cc": source(declaration), "b.cc": source(declaration)}), [],
                             declaration)
        one = source("int Count() {")
        self.assertEqual(self.check({"a.cc": one, "b.cc": source("", "int Count() {")}), [])
        self.assertEqual(self.check({"a.cc": one, "b.cc": one}, {"b.cc": "other"}), [])


if __name__ == "__main__":
    unittest.main()
