# SPDX-License-Identifier: Apache-2.0
"""The initramfs of Dom0 and of a guest: busybox, Debian's Xen tools, kernel modules, our programs."""

import lzma
import os
import stat
import subprocess

import guest_module
import initramfs
import packages

HERE = os.path.dirname(os.path.abspath(__file__))
LIBRARIES = "usr/lib/x86_64-linux-gnu"
GUEST_MODULES = ["xenfs", "xen-evtchn", "xen-gntdev", "xen-gntalloc", "xen-privcmd", "loop"]
DOM0_MODULES = GUEST_MODULES + ["brd"]
# Loaded by dom0/init when it is time, by scenarios and by tests/benchmarks/xen.
DOM0_LATER_MODULES = ["qemu-fw-cfg", "xen-blkback", "nvme", "crc32c_generic", "ext4"]
# In an order in which they can be loaded.
GUEST_LATER_MODULES = ["xen-blkfront", "virtio-msg-xen", "virtio-blk", "virtio-rng", "virtio-console",
                       "vmsg-break-queue", "crc32c_generic", "ext4"]
# Below the folder of a build. What only Dom0 runs is not in a guest: its memory holds the whole image.
GUEST_PROGRAMS = ["bin/vmsgd", "bin/vmsg-frontend", "bin/disk-witness", "bin/hotplug-cycles", "bin/hasty-successor",
                  "bin/ends-of-access", "bin/await-line", "bin/guest-agent", "bin/xen-measure",
                  "tests/emulated-xen/contract-peer", "tests/real-xen/contract/xen-contract-test"]
DOM0_PROGRAMS = GUEST_PROGRAMS + ["bin/vmsgctl", "bin/vmsg-decode", "bin/guest", "bin/domain"]
XEN_TOOLS = ["xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0", "libxl-save-helper",
             "lsevtchn", "xenstore-control"]
STORE_COMMANDS = ["read", "write", "ls", "rm", "list", "exists", "chmod", "watch"]


def build(folder, built):
    """Writes `folder`/dom0.cpio, with the guest's kernel and image inside. built: the folder of a
    build."""
    ours = guest_module.build(folder)
    guest = _base(folder, built, GUEST_PROGRAMS, GUEST_MODULES, GUEST_LATER_MODULES, ours)
    guest.add_file("init", f"{HERE}/guest/init", 0o755)
    guest.add_file("usr/bin/contract-machine", f"{HERE}/guest/contract-machine", 0o755)
    dom0 = _base(folder, built, DOM0_PROGRAMS, DOM0_MODULES, DOM0_LATER_MODULES)
    root = f"{folder}/root"
    for tool in XEN_TOOLS:
        dom0.add_program(f"usr/sbin/{tool}", f"{root}/usr/lib/xen-4.17/bin/{tool}")
    # xl looks for its helper where Debian has it.
    dom0.add_link("usr/lib/xen-4.17/bin", "/usr/sbin")
    dom0.add_folder("usr/lib/xen-4.17/boot")
    for name in sorted(os.listdir(f"{root}/etc/xen/scripts")):
        dom0.add_file(f"etc/xen/scripts/{name}", f"{root}/etc/xen/scripts/{name}", 0o755)
    dom0.add_file("init", f"{HERE}/dom0/init", 0o755)
    dom0.add_file("usr/bin/contract-machine", f"{HERE}/dom0/contract-machine", 0o755)
    dom0.add_file("guest/vmlinux", f"{folder}/vmlinux", 0o644)
    dom0.add_bytes("guest/initramfs", guest.finish(), 0o644)
    dom0.add_file("guest/root-initramfs",
                  initramfs.build(folder, packages.kernel_release(f"{folder}/root"), ours["virtio-msg-xen"]),
                  0o644)
    guest_module.build_driver(folder, "backports")  # only to see that it is built
    with open(f"{folder}/dom0.cpio", "wb") as image:
        image.write(dom0.finish())


def _base(folder, built, programs, modules, later, ours=None):
    root = f"{folder}/root"
    image = _Image(folder)
    for name in ("dev/pts", "proc", "sys", "run", "tmp", "var/log/xen/console", "var/lib/xen", "etc/xen/auto"):
        image.add_folder(name)
    image.add_node("dev/console", 5, 1)
    image.add_node("dev/null", 1, 3)
    image.add_program("bin/busybox", f"{root}/bin/busybox")
    image.add_link("bin/sh", "busybox")
    image.add_program("bin/bash", f"{root}/bin/bash")
    image.add_program("usr/bin/flock", f"{root}/usr/bin/flock")  # busybox-static has none
    image.add_program("usr/bin/xenstore", f"{root}/usr/bin/xenstore")
    for command in STORE_COMMANDS:
        image.add_link(f"usr/bin/xenstore-{command}", "xenstore")
    for tool in ("mke2fs", "e2fsck"):
        image.add_program(f"usr/sbin/{tool}", f"{root}/sbin/{tool}")
    for program in programs:
        image.add_program(f"usr/bin/{os.path.basename(program)}", f"{built}/{program}")
    # The C++ runtime opens it at run time: ldd does not name it for every program.
    image.add_file(f"{LIBRARIES}/libgcc_s.so.1", f"/{LIBRARIES}/libgcc_s.so.1".replace("/usr", "", 1), 0o755)
    image.add_link("lib/x86_64-linux-gnu", f"/{LIBRARIES}")
    image.add_bytes("etc/ld.so.conf", f"/{LIBRARIES}\n".encode(), 0o644)
    image.add_modules("root", modules, later, ours or {})
    return image


class _Image:
    """A cpio archive in the "newc" format (cpio(5)), written by hand: no root, no device nodes of
    the host, no cpio."""

    def __init__(self, folder):
        self.folder = folder
        self.entries = {}  # name: (mode, device, content)

    def add_folder(self, name):
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def add_node(self, name, major, minor):
        self._add(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def add_link(self, name, target):
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def add_bytes(self, name, content, mode):
        self._add(name, stat.S_IFREG | mode, content)

    def add_file(self, name, source, mode):
        with open(source, "rb") as file:
            self.add_bytes(name, file.read(), mode)

    def add_program(self, name, source):
        """A program without its symbols, and the libraries that it needs."""
        stripped = f"{self.folder}/stripped"
        subprocess.run(["strip", "-o", stripped, source], check=True)
        self.add_file(name, stripped, 0o755)
        os.unlink(stripped)
        libraries = f"{self.folder}/root/{LIBRARIES}:{self.folder}/root/{LIBRARIES[4:]}"
        listed = subprocess.run(["ldd", source], env={**os.environ, "LD_LIBRARY_PATH": libraries},
                                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in listed.stdout.splitlines():
            words = line.split()
            if "=>" in words and words[2].startswith("/"):
                self.add_file(f"{LIBRARIES}/{words[0]}", words[2], 0o755)
            elif words[0].startswith("/lib64/"):
                self.add_file(words[0][1:], words[0], 0o755)

    def add_modules(self, tree, names, later, ours):
        """The modules of a kernel, in lib/modules/order those to load at the start, in their order, and in
        lib/modules/NAME.order what a later one still needs, itself last. ours: name: file."""
        found = dict(ours)
        for directory, _, files in os.walk(f"{self.folder}/{tree}/lib/modules"):
            for file in files:
                if file.endswith((".ko", ".ko.xz")):
                    found[file.split(".")[0].replace("_", "-")] = os.path.join(directory, file)
        order = []

        def load(name):
            name = name.replace("_", "-")
            if name in order or name not in found:
                return  # not found: built in
            with (lzma.open if found[name].endswith(".xz") else open)(found[name], "rb") as file:
                content = file.read()
            start = content.find(b"\0depends=") + len(b"\0depends=")
            for needed in content[start:content.index(b"\0", start)].decode().split(","):
                load(needed)
            order.append(name)
            self.add_bytes(f"lib/modules/{name}.ko", content, 0o644)

        for name in names:
            load(name)
        self.add_bytes("lib/modules/order", "".join(f"{name}\n" for name in order).encode(), 0o644)
        for name in later:
            known = len(order)
            load(name)
            needed = "".join(f"{name}\n" for name in order[known:])
            self.add_bytes(f"lib/modules/{name}.order", needed.encode(), 0o644)

    def finish(self):
        """The archive's bytes."""
        chunks = []
        for inode, name in enumerate(sorted(self.entries), 1):
            mode, device, content = self.entries[name]
            chunks += _record(inode, name, mode, device, content)
        chunks += _record(0, "TRAILER!!!", 0, (0, 0), b"")
        return b"".join(chunks)

    def _add(self, name, mode, content, device=(0, 0)):
        parent = os.path.dirname(name)
        if parent and parent not in self.entries:
            self.add_folder(parent)
        self.entries[name] = (mode, device, content)


def _record(inode, name, mode, device, content):
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return [header, path, bytes(-(len(header) + len(path)) % 4), content, bytes(-len(content) % 4)]
