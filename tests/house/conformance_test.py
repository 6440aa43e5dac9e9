#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever the list of clauses and the labels do not agree in is noticed."""

import unittest

import conformance

CLAUSES = """# a comment
2 bus:Ordering / Bus
1 device:Reset / Device
"""
LIST = """# Title
### bus:Ordering / Bus
1. MUST keep the order: `Order.IsKept`,
   `Order.IsKeptLater`
2. MUST answer. Reason: not ours.

## Part
### device:Reset / Device
1. MUST reset: `Reset.Works`
"""
ORDER = """// [bus:Ordering / Bus]
// Prose.
TEST(Order, IsKept) {
}
// [bus:Ordering / Bus]
TEST_F(Order,
       IsKeptLater) {
"""
RESET = """// [device:Virtqueues / Reset] [device:Reset / Device] words
TEST_P(Reset, Works) {
"""


class Conformance(unittest.TestCase):
    def rules(self, listed=LIST, order=ORDER, reset=RESET, clauses=CLAUSES):
        tests, stray = {}, []
        for name, text in [("order.cc", order), ("reset.cc", reset)]:
            found, without = conformance.read_labels(name, text)
            stray += without
            for test, line, labels in found:
                tests[test] = (name, line, labels)
        violations = stray + list(conformance.check(conformance.read_clauses(clauses),
                                                    conformance.read_list(listed), tests))
        return [f"{file}:{line}: {rule}" for file, line, rule in violations]

    def expect(self, rules, *parts):
        self.assertEqual(len(rules), 1, rules)
        for part in parts:
            self.assertIn(part, rules[0])

    def test_agreement(self):
        self.assertEqual(self.rules(), [])

    def test_clause_without_a_section(self):
        self.expect(self.rules(clauses=CLAUSES + "1 driver:Reset / Driver\n"),
                    "no section for the clause driver:Reset / Driver")

    def test_section_that_is_no_clause(self):
        self.expect(self.rules(listed=LIST + "### bus:Ordring / Bus\n1. x `Order.IsKept`\n"),
                    "no clause bus:Ordring / Bus")

    def test_sections_out_of_order(self):
        parts = LIST.split("### ")
        self.expect(self.rules(listed=parts[0] + "### " + parts[2] + "\n### " + parts[1]),
                    "order")

    def test_statement_left_out(self):
        self.expect(self.rules(listed=LIST.replace("2. MUST answer. Reason: not ours.\n", "")),
                    "md:2:", "has 2 statements")

    def test_statement_without_test_or_reason(self):
        self.expect(self.rules(listed=LIST.replace("Reason: not ours.", "It does.")),
                    "neither a test nor a reason")

    def test_test_that_does_not_exist(self):
        self.expect(self.rules(listed=LIST.replace("not ours.", "`Order.IsLost`")),
                    "there is no test Order.IsLost")

    def test_test_without_its_label(self):
        self.expect(self.rules(reset=RESET.replace(" [device:Reset / Device]", "")),
                    "reset.cc:2:", "lacks the label [device:Reset / Device]")

    def test_label_that_the_list_does_not_have(self):
        self.expect(self.rules(order=ORDER + "// [bus:Ordering / Bus]\nTEST(Order, More) {\n"),
                    "order.cc:9:", "does not name Order.More")

    def test_label_that_is_no_clause(self):
        self.expect(self.rules(order=ORDER + "// [bus:Odering / Bus]\nTEST(Order, More) {\n"),
                    "[bus:Odering / Bus] is no clause")

    def test_label_above_no_test(self):
        self.expect(self.rules(order=ORDER + "  // [bus:Ordering / Bus]\n  int x;\n"),
                    "order.cc:8:", "above what is no test")


if __name__ == "__main__":
    unittest.main()
