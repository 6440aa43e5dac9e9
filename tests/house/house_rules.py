#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The architecture's rules, checked on the sources: who includes whom, and what a file looks like.

    house_rules.py <root of the repository>

Prints one line `file:line: rule` for each violation and exits 1 if there is one.
"""

import os
import re
import sys

FOLDERS = ("text", "virtio-msg", "grants", "xenstore", "backend", "frontend-model", "linux", "tools",
           "packaging", "tests")
# A part of Linux's kernel: its licence and its style, and it includes only Linux and itself.
KERNEL = "linux/"
KERNEL_HEADERS = ("linux/", "asm/", "xen/", "uapi/")
MAX_LINES = 400
MAX_SOURCES_IN_FOLDER = 12
MAX_SOURCES_OF_THE_MODULE = 32  # Kbuild wants one folder
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
SOURCE_SUFFIXES = (".cc", ".h", ".c", ".py", ".sh")

DEVICE_SIDE = ("backend/", "virtio-msg/", "grants/", "xenstore/", "text/")
DRIVER_SIDE = ("frontend-model/", "virtio-msg/", "grants/", "xenstore/", "text/")
# Layouts of virtio itself, as opposed to the transport's messages.
VIRTIO_LAYOUTS = ("virtio-msg/virtio_", "virtio-msg/split_ring.h")

# Folder: what its files may include of ours, as prefixes of the path. The longest folder that holds
# the file counts.
MAY_INCLUDE = {
    "text": ("text/",),
    "virtio-msg": ("virtio-msg/",),
    "grants": ("grants/",),
    "xenstore": ("xenstore/", "text/"),
    # What runs for a guest is given opened resources: it reads no store and opens no platform.
    "backend": ("backend/", "virtio-msg/", "grants/", "text/"),
    "backend/sandbox": ("backend/sandbox/",),
    "backend/service": DEVICE_SIDE,
    "backend/virtqueue": ("backend/virtqueue/", "grants/window.h") + VIRTIO_LAYOUTS,
    "backend/devices": ("backend/devices/", "backend/virtqueue/", "backend/runtime/", "text/",
                        "grants/window.h") + VIRTIO_LAYOUTS,
    "frontend-model": DRIVER_SIDE,
    "tools": ("tools/", "backend/", "frontend-model/", "virtio-msg/", "grants/", "xenstore/",
              "text/"),
    "tests": ("tests/", "tools/", "backend/", "frontend-model/", "virtio-msg/", "grants/",
              "xenstore/", "text/"),
}

# Header of ours: the only folders that may include it, besides those that MAY_INCLUDE leaves out.
ONLY_IN = {
    # Real or emulated Xen is chosen once, where a program starts.
    "grants/native/": ("grants/", "tests/"),
    "grants/emulated/": ("grants/", "tools/xen-emu/", "tests/"),
    "grants/platform.h": ("grants/", "backend/service/", "frontend-model/", "tools/", "tests/"),
}

# Library header: the only folders that may include it.
LIBRARY_ONLY_IN = {
    "xengnttab.h": ("grants/native/", "tests/"),
    "xenevtchn.h": ("grants/native/", "tests/"),
    "xenctrl.h": ("grants/native/", "tests/"),
    "xentoollog.h": ("grants/native/", "tests/"),
    "xenstore.h": ("xenstore/", "tests/"),
    "libxlutil.h": ("xenstore/", "tests/"),
    "seccomp.h": ("backend/sandbox/", "tests/"),
    "sys/capability.h": ("backend/sandbox/", "tests/"),
    "systemd/sd-daemon.h": ("tools/vmsgd/", "tests/"),
}

INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def is_script(path):
    if os.path.splitext(path)[1] or not os.access(path, os.X_OK):
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"#!"


def is_source(path):
    return path.endswith(SOURCE_SUFFIXES) or is_script(path)


def needs_licence(path):
    return is_source(path) or os.path.basename(path) in ("CMakeLists.txt", "Kbuild")


def include_rule(folder):
    while folder not in MAY_INCLUDE:
        folder = os.path.dirname(folder)
    return folder, MAY_INCLUDE[folder]


def licence_rule(name, line):
    """The rule that the first line of a file breaks, or None."""
    wanted = "GPL-2.0-only" if name.startswith(KERNEL) else "Apache-2.0"
    if re.fullmatch(rf"(//|#|/\*) SPDX-License-Identifier: {re.escape(wanted)}( \*/)?", line):
        return None
    return f"the first line must be SPDX-License-Identifier: {wanted}"


def check_include(name, quote, header):
    """The rule that `#include "header"` in file `name` breaks, or None."""
    if name.startswith(KERNEL):
        if header.startswith(KERNEL_HEADERS) if quote == "<" else "/" not in header:
            return None
        return f"{KERNEL} may include the kernel's headers and its own, not {header}"
    if quote == "<":
        allowed = LIBRARY_ONLY_IN.get(header)
        if allowed and not name.startswith(allowed):
            return f"<{header}> may be included only in {', '.join(allowed)}"
        return None
    if header.startswith("absl/"):
        return None
    if not header.startswith(tuple(folder + "/" for folder in FOLDERS)):
        return f'"{header}" is not written from the top of the repository'
    folder, allowed = include_rule(os.path.dirname(name))
    if not header.startswith(allowed):
        return f"{folder}/ may not include {header} (only {', '.join(allowed)})"
    for restricted, places in ONLY_IN.items():
        if header.startswith(restricted) and not name.startswith(places):
            return f"{header} may be included only in {', '.join(places)}"
    return None


def check_name(name):
    for part in name.split("/"):
        stem = part.split(".")[0]
        for word in re.split(r"[-_]", stem):
            if word.lower() in VAGUE_NAMES:
                yield name, 1, f'"{word}" in a name does not say what the file is for'


def check_program(name, lines):
    """Each of tools' programs says its version and notices a full disk, in the same place."""
    if re.fullmatch(r"tools/[^/]+/main\.cc", name) and not any("RunProgram(" in l for l in lines):
        yield name, len(lines), "main() returns vmsg::RunProgram(...) (tools/program/program.h)"


def check_file(root, name):
    path = os.path.join(root, name)
    yield from check_name(name)
    if not needs_licence(path):
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    first = 1 if lines and lines[0].startswith("#!") else 0
    licence = lines[first] if len(lines) > first else ""
    rule = licence_rule(name, licence)
    if rule:
        yield name, first + 1, rule
    if len(lines) > MAX_LINES:
        yield name, MAX_LINES + 1, f"{len(lines)} lines, at most {MAX_LINES}: split by purpose"
    if not name.endswith((".cc", ".h", ".c")):
        return
    yield from check_program(name, lines)
    for number, line in enumerate(lines, 1):
        found = INCLUDE.match(line)
        rule = found and check_include(name, found.group(1), found.group(2))
        if rule:
            yield name, number, rule


def check(root):
    """All violations below `root`: (file, line, rule), by file."""
    violations = []
    for folder in FOLDERS:
        for directory, below, files in os.walk(os.path.join(root, folder)):
            below[:] = sorted(d for d in below if d != "__pycache__" and not d.startswith("."))
            names = [os.path.relpath(os.path.join(directory, f), root) for f in sorted(files)]
            sources = [name for name in names if is_source(os.path.join(root, name))]
            most = MAX_SOURCES_OF_THE_MODULE if folder == "linux" else MAX_SOURCES_IN_FOLDER
            if len(sources) > most:
                violations.append((sources[most], 1,
                                   f"{os.path.relpath(directory, root)}/ has {len(sources)} source "
                                   f"files, at most {most}: split the folder"))
            for name in names:
                violations.extend(check_file(root, name))
    return violations


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: house_rules.py <root of the repository>")
    violations = check(sys.argv[1])
    for name, line, rule in violations:
        print(f"{name}:{line}: {rule}")
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
