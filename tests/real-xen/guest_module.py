# SPDX-License-Identifier: Apache-2.0
"""linux/, the driver of a Linux guest, built for a kernel of the images."""

import glob
import os
import shutil
import subprocess

import packages

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = os.path.join(os.path.dirname(os.path.dirname(HERE)), "linux")


def sources():
    return sorted(path for place in (SOURCES, f"{SOURCES}/tests")
                  for path in glob.glob(f"{place}/*.[ch]") + [f"{place}/Kbuild"])


def build(folder):
    """name: path of the modules for the kernel of the images. A warning is an error, here as in the
    kernel, one of sparse too, where that is installed."""
    return {"virtio-msg-xen": build_driver(folder, "root"),
            "vmsg-break-queue": _build(folder, "root", f"{SOURCES}/tests", "vmsg_break_queue")}


def build_driver(folder, tree):
    """For the kernel that is unpacked below `folder`/tree."""
    return _build(folder, tree, SOURCES, "virtio_msg_xen")


def _build(folder, tree, source, name):
    headers = packages.kernel_headers(f"{folder}/{tree}")
    place = f"{folder}/module/{tree}/{name}"
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    for path in glob.glob(f"{source}/*.[ch]") + [f"{source}/Kbuild"]:
        shutil.copy(path, place)
    # The kernel's own tools are run with the libraries that were unpacked beside them.
    libraries = f"{folder}/root/usr/lib/x86_64-linux-gnu"
    check = ["C=1", "CF=-Wsparse-error"] if shutil.which("sparse") else []
    ran = subprocess.run(
        ["make", "-C", headers, f"M={place}", "W=1", "KCFLAGS=-Werror", *check,
         "CONFIG_DEBUG_INFO_BTF_MODULES=",  # it would need pahole
         f"-j{os.cpu_count()}",
         "modules"],
        env={**os.environ, "LD_LIBRARY_PATH": libraries}, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    module = f"{place}/{name}.ko"
    if ran.returncode != 0 or not os.path.exists(module):
        raise RuntimeError(f"{source} was not built for {headers}:\n{ran.stdout[-4000:]}")
    subprocess.run(["strip", "--strip-debug", module], check=True)
    return module
