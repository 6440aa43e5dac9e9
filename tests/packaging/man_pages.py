#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The man pages are well-formed and name the same options as each program's --help.

    man_pages.py <docs/man> <folder of the programs>
"""

import os
import re
import shutil
import subprocess
import sys

OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
# An option in mdoc: Fl -name.
MAN_OPTION = re.compile(r"\bFl -([a-z][a-z0-9-]*)")


def main():
    pages, programs = sys.argv[1:]
    wrong = []
    for page in sorted(os.listdir(pages)):
        path = os.path.join(pages, page)
        program = os.path.join(programs, page.rsplit(".", 1)[0])
        with open(path, encoding="utf-8") as file:
            in_page = set(MAN_OPTION.findall(file.read()))
        text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
        in_help = set(OPTION.findall(text))
        if page == "vmsg-decode.1":  # both name an option of vmsgd's
            in_help, in_page = in_help - {"trace"}, in_page - {"trace"}
        wrong += [f"{page}: --{name} is only in --help" for name in sorted(in_help - in_page)]
        wrong += [f"{page}: --{name} is not in --help" for name in sorted(in_page - in_help)]
        if shutil.which("mandoc"):
            lint = subprocess.run(["mandoc", "-Tlint", "-Wwarning", path], capture_output=True,
                                  text=True, check=False)
            wrong += lint.stdout.splitlines()
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
