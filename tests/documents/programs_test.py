#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every program does the same: --version, -h, and a status when its output was lost.

    programs_test.py <root of the repository> <directory of the programs> <version>
"""

import os
import subprocess
import sys
import unittest

import emulation

ROOT, PROGRAMS, VERSION = ".", "build/release/bin", "0.1.0"
NAMES = ["vmsgd", "vmsgctl", "vmsg-frontend", "vmsg-decode", "xen-emu"]
FULL = "/dev/full"


def run(name, *arguments, output=subprocess.PIPE):
    return subprocess.run([os.path.join(PROGRAMS, name), *arguments], stdin=subprocess.DEVNULL,
                          stdout=output, stderr=subprocess.PIPE, text=True, check=False)


class Programs(unittest.TestCase):
    def test_all_of_them_are_tried(self):
        folders = os.listdir(os.path.join(ROOT, "tools"))
        self.assertEqual(sorted(NAMES), sorted(
            f for f in folders if os.path.exists(os.path.join(ROOT, "tools", f, "main.cc"))))

    def test_version(self):
        for name in NAMES:
            done = run(name, "--version")
            self.assertEqual((done.returncode, done.stdout, done.stderr),
                             (0, f"{name} {VERSION}\n", ""))

    def test_help(self):
        for name in NAMES:
            short, long = run(name, "-h"), run(name, "--help")
            self.assertEqual((short.returncode, short.stdout), (0, long.stdout), name)
            self.assertIn(name, long.stdout)

    def test_a_full_disk_is_noticed(self):
        with open(FULL, "w", encoding="utf-8") as full:
            for name in NAMES:
                for option in ["--help", "--version"]:
                    done = run(name, option, output=full)
                    self.assertEqual(done.returncode, 1, name)
                    self.assertIn(f"{name}: cannot write standard output: No space left",
                                  done.stderr)

    def test_a_command_whose_output_is_lost_fails(self):
        with emulation.Emulation(ROOT, PROGRAMS, served=True) as xen:
            xen.run("vmsgctl attach g1 type=rng")
            for line in ["vmsgctl list", "vmsgctl list --json", "xen-emu list --dir /tmp/xen",
                         "vmsg-frontend --xen=emulated:/tmp/xen/domains/1 list",
                         "vmsg-frontend --xen=emulated:/tmp/xen/domains/1 rng --bytes 10"]:
                xen.run(line)
                with self.assertRaisesRegex(AssertionError, "status 1\n.*No space left", msg=line):
                    xen.run(f"{line} >{FULL}")

    def test_a_service_whose_ready_is_lost_says_so_and_serves(self):
        with emulation.Emulation(ROOT, PROGRAMS, served=False) as xen:
            xen.run("xen-emu serve --dir /tmp/xen &")
            line = xen.here("exec vmsgd --xen=emulated:/tmp/xen >/dev/full")
            with subprocess.Popen(line, shell=True, env=xen.environment, stdin=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True) as service:
                said = next((l for l in service.stderr if "ready" in l), "")
                service.terminate()
                service.stderr.read()
            self.assertIn("cannot write `ready` to descriptor 1: No space left on device", said)
            self.assertEqual(service.returncode, 0)

    def test_a_closed_output_is_no_matter_to_who_prints_nothing(self):
        for name in NAMES:
            done = subprocess.run(f"exec {PROGRAMS}/{name} --no-such-option >&-", shell=True,
                                  stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual(done.returncode, 2, name)
            self.assertNotIn("cannot write", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    VERSION, PROGRAMS, ROOT = sys.argv.pop(), sys.argv.pop(), sys.argv.pop()
    unittest.main()
