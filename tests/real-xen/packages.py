# SPDX-License-Identifier: Apache-2.0
"""Debian's Xen, kernel and tools, downloaded and unpacked below the build folder; never installed."""

import glob
import lzma
import os
import struct
import subprocess
import zlib

KERNEL_METAPACKAGE = "linux-image-amd64"  # depends on the newest kernel of the release
PACKAGES = [
    "busybox-static", "bash", "util-linux", "libtinfo6", "e2fsprogs", "libext2fs2", "libss2", "libcom-err2",
    "xen-hypervisor-4.17-amd64", "xen-utils-4.17", "xen-utils-common", "xenstore-utils",
    "libxenmisc4.17", "libxencall1", "libxendevicemodel1", "libxenevtchn1",
    "libxenforeignmemory1", "libxengnttab1", "libxenstore4", "libxentoolcore1", "libxentoollog1",
    "libxenhypfs1", "libyajl2", "libaio1", "libfdt1", "libnl-3-200", "libnl-route-3-200",
    "libelf1",  # of the tools that come with the kernel's headers
]


class Unavailable(Exception):
    """Something that is no fault of ours: the scenarios are skipped, with this text."""


def fetch(folder):
    """Makes `folder`/root (packages, unpacked), `folder`/xen and `folder`/vmlinux. Quick when done."""
    done = os.path.join(folder, "packages.done")
    wanted = "\n".join(PACKAGES)
    if os.path.exists(done) and open(done).read() == wanted:
        return
    for name in ("debs", "root", "apt/lists/partial", "apt/cache/archives/partial"):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
    # Lists of our own: neither root nor an `apt-get update` of the machine is needed.
    apt = ["-o", f"Dir::State::Lists={folder}/apt/lists", "-o", f"Dir::Cache={folder}/apt/cache",
           "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root"]
    debs = os.path.join(folder, "debs")
    _apt(["apt-get", *apt, "-q", "update"], debs)
    kernel = _depends(apt, debs, KERNEL_METAPACKAGE, "linux-image-")
    headers = kernel.replace("linux-image-", "linux-headers-")
    wanted_of_kernel = [kernel, headers, _depends(apt, debs, headers, "linux-headers-"),
                        _depends(apt, debs, headers, "linux-kbuild-")]
    for deb in glob.glob(f"{debs}/*.deb"):
        os.unlink(deb)
    _apt(["apt-get", *apt, "-q", "download", *PACKAGES, *wanted_of_kernel], debs)
    root = os.path.join(folder, "root")
    for deb in sorted(glob.glob(f"{debs}/*.deb")):
        subprocess.run(["dpkg", "-x", deb, root], check=True)
    makefile = os.path.join(kernel_headers(folder), "Makefile")
    with open(makefile) as file:
        text = file.read()
    with open(makefile, "w") as file:
        file.write(text.replace("include /usr/src/", f"include {root}/usr/src/"))
    with open(os.path.join(folder, "xen"), "wb") as xen:
        packed = glob.glob(f"{root}/boot/xen-4.17-amd64.gz")[0]
        xen.write(zlib.decompress(open(packed, "rb").read(), 31))
    with open(os.path.join(folder, "vmlinux"), "wb") as kernel_file:
        kernel_file.write(_unpack_kernel(glob.glob(f"{root}/boot/vmlinuz-*")[0]))
    with open(done, "w") as file:
        file.write(wanted)


def kernel_release(folder):
    return os.listdir(os.path.join(folder, "root/lib/modules"))[0]


def kernel_headers(folder):
    return os.path.join(folder, "root/usr/src", f"linux-headers-{kernel_release(folder)}")


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
