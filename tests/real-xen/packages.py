# SPDX-License-Identifier: Apache-2.0
"""Debian's Xen, kernel and tools, downloaded and unpacked below the build folder; never installed."""

import glob
import lzma
import os
import shutil
import struct
import subprocess
import zlib

KERNEL_METAPACKAGE = "linux-image-amd64"  # depends on the newest kernel of the release
# The kernel of Debian's backports (6.12) is unpacked below `folder`/backports.
BACKPORTS = "deb http://deb.debian.org/debian bookworm-backports main\n"
PACKAGES = [
    "busybox-static", "bash", "util-linux", "libtinfo6", "e2fsprogs", "libext2fs2", "libss2", "libcom-err2",
    "xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "xenstore-utils",
    "libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1",
    "libxenforeignmemory1", "libxengnttab1", "libxenstore4", "libxentoolcore1", "libxentoollog1",
    "libxenhypfs1", "libyajl2", "libaio1", "libfdt1", "libnl-3-200", "libnl-route-3-200",
    "libelf1",  # of the tools that come with the kernel's headers
]
# What makes an initramfs (initramfs.py): a tree of its own, as an installed Debian has it.
INITRAMFS_PACKAGES = [
    "initramfs-tools", "initramfs-tools-core", "klibc-utils", "libklibc", "logsave", "linux-base", "kmod",
    "libkmod2", "udev", "libudev1", "cpio", "busybox-static", "bash", "dash", "coreutils", "sed", "grep", "findutils",
    "mawk", "gzip", "dpkg", "debianutils", "util-linux", "libc6", "libc-bin", "libselinux1", "libpcre2-8-0",
    "libacl1", "libattr1", "libgmp10", "libssl3", "liblzma5", "libzstd1", "libblkid1", "libcap2", "libmd0",
    "zlib1g", "libuuid1", "libmount1", "libtinfo6", "libgcc-s1",
]


class Unavailable(Exception):
    """Something that is no fault of ours: the scenarios are skipped, with this text."""


def fetch(folder):
    """Makes `folder`/root (packages, unpacked), `folder`/xen and `folder`/vmlinux. Quick when done."""
    done = os.path.join(folder, "packages.done")
    wanted = "\n".join([*PACKAGES, *INITRAMFS_PACKAGES, BACKPORTS])
    if os.path.exists(done) and open(done).read() == wanted:
        return
    for name in ("debs", "root", "apt/lists/partial", "apt/cache/archives/partial",
                 "initramfs-debs"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    # Lists of our own: neither root nor an `apt-get update` of the machine is needed.
    apt = ["-o", f"Dir::State::Lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt/cache",
           "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"]
    debs = os.path.join(folder, "debs")
    _apt(["apt-get", *apt, "-q", "update"], debs)
    for deb in glob.glob(f"{folder}/*debs/*.deb"):
        os.unlink(deb)
    _apt(["apt-get", *apt, "-q", "download", *PACKAGES, *_packages_of_kernel(apt, debs)], debs)
    _apt(["apt-get", *apt, "-q", "download", *INITRAMFS_PACKAGES], f"{folder}/initramfs-debs")
    _unpack_system(f"{folder}/initramfs-debs", f"{folder}/initramfs-tools")
    root = os.path.join(folder, "root")
    for deb in sorted(glob.glob(f"{debs}/*.deb")):
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    _redirect_headers(root)
    _fetch_backports(folder, apt)
    with open(os.path.join(folder, "xen"), "wb") as xen:
        packed = glob.glob(f"{root}/boot/xen-4.17-amd64.gz")[0]
        xen.write(zlib.decompress(open(packed, "rb").read(), 31))
    with open(os.path.join(folder, "vmlinux"), "wb") as kernel_file:
        kernel_file.write(_unpack_kernel(kernel_image(root)))
    with open(done, "w") as file:
        file.write(wanted)


def _unpack_system(debs, tree):
    """Makes `tree` anew, of all packages: as Debian 12 is installed, /bin and so on are links."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        os.makedirs(f"{tree}/usr/{name}")
        os.symlink(f"usr/{name}", f"{tree}/{name}")
    for deb in sorted(glob.glob(f"{debs}/*.deb")):
        subprocess.run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -f - -C "$1"',
                        deb, tree], check=True)
    os.symlink("mawk", f"{tree}/usr/bin/awk")  # update-alternatives has not run


def _packages_of_kernel(apt, folder):
    kernel = _depends(apt, folder, KERNEL_METAPACKAGE, "linux-image-")
    headers = kernel.replace("linux-image-", "linux-headers-")
    return [kernel, headers, _depends(apt, folder, headers, "linux-headers-"),
            _depends(apt, folder, headers, "linux-kbuild-")]


def _fetch_backports(folder, apt):
    """Another kernel, with its headers. xl unpacks it by itself."""
    debs, tree = f"{folder}/backports-debs", f"{folder}/backports"
    os.makedirs(f"{folder}/apt/backports-lists/partial", exist_ok=True)
    os.makedirs(debs, exist_ok=True)
    with open(f"{folder}/apt/backports.list", "w") as file:
        file.write(BACKPORTS)
    apt = [*apt, "-o", f"Dir::Etc::SourceList={folder}/apt/backports.list", "-o", "Dir::Etc::SourceParts=/dev/null",
           "-o", f"Dir::State::Lists={folder}/apt/backports-lists"]
    _apt(["apt-get", *apt, "-q", "update"], debs)
    _apt(["apt-get", *apt, "-q", "download", *_packages_of_kernel(apt, debs)], debs)
    shutil.rmtree(tree, ignore_errors=True)
    for deb in sorted(glob.glob(f"{debs}/*.deb")):
        subprocess.run(["dpkg", "-x", deb, tree], check=True)
    _redirect_headers(tree)


def _redirect_headers(tree):
    """They name each other by where they are installed."""
    makefile = os.path.join(kernel_headers(tree), "Makefile")
    with open(makefile) as file:
        text = file.read()
    with open(makefile, "w") as file:
        file.write(text.replace("include /usr/src/", f"include {tree}/usr/src/"))


def kernel_release(tree):
    return os.listdir(os.path.join(tree, "lib/modules"))[0]


def kernel_image(tree):
    return os.path.join(tree, "boot", f"vmlinuz-{kernel_release(tree)}")


def kernel_headers(tree):
    return os.path.join(tree, "usr/src", f"linux-headers-{kernel_release(tree)}")


def _apt(command, folder):
    try:
        ran = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if ran.returncode != 0:
        raise Unavailable(f"{' '.join(command)}:\n{ran.stdout[-2000:]}")
    return ran.stdout


def _depends(apt, folder, package, prefix):
    """The package of this prefix that `package` depends on."""
    depends = _apt(["apt-cache", *apt, "depends", package], folder)
    for line in depends.splitlines():
        if f"Depends: {prefix}" in line:
            return line.split()[-1]
    raise Unavailable(f"{package} depends on no {prefix}*:\n{depends}")


def _unpack_kernel(path):
    """The ELF image inside a bzImage: Xen starts it seconds sooner under QEMU's interpreter.
    Documentation/arch/x86/boot.rst of Linux: setup_sects, payload_offset, payload_length."""
    image = open(path, "rb").read()
    start = (1 + (image[0x1F1] or 4)) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset:start + offset + length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    raise Unavailable(f"{path}: a compression we do not know: {payload[:4]!r}")
