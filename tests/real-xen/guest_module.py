# SPDX-License-Identifier: Apache-2.0
"""linux/, the driver of a Linux guest, built for the kernel of the images."""

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
    """name: path of the modules. A warning is an error, here as in the kernel."""
    return {"virtio-msg-xen": _build(folder, SOURCES, "virtio_msg_xen"),
            "vmsg-break-queue": _build(folder, f"{SOURCES}/tests", "vmsg_break_queue")}


def _build(folder, source, name):
    release = packages.kernel_release(folder)
    place = f"{folder}/module/{name}"
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    for path in glob.glob(f"{source}/*.[ch]") + [f"{source}/Kbuild"]:
        shutil.copy(path, place)
    # The kernel's own tools are run with the libraries that were unpacked beside them.
    libraries = f"{folder}/root/usr/lib/x86_64-linux-gnu"
    ran = subprocess.run(
        ["make", "-C", packages.kernel_headers(folder), f"M={place}", "W=1", "KCFLAGS=-Werror",
         f"-j{os.cpu_count()}", "modules"],
        env={**os.environ, "LD_LIBRARY_PATH": libraries}, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    module = f"{place}/{name}.ko"
    if ran.returncode != 0 or not os.path.exists(module):
        raise RuntimeError(f"{source} was not built for Linux {release}:\n{ran.stdout[-4000:]}")
    subprocess.run(["strip", "--strip-debug", module], check=True)
    return module
