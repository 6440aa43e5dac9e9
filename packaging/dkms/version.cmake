# SPDX-License-Identifier: Apache-2.0
# Run by cpack before it packs: with `cpack -R VERSION` the sources have that version, too.
set(sources ${CPACK_TEMPORARY_DIRECTORY}/dkms/usr/src)
file(GLOB folder ${sources}/virtio-msg-xen-*)
if(folder)
  set(wanted ${sources}/virtio-msg-xen-${CPACK_PACKAGE_VERSION})
  if(NOT folder STREQUAL wanted)
    file(RENAME ${folder} ${wanted})
  endif()
  file(READ ${wanted}/dkms.conf text)
  string(REGEX REPLACE "PACKAGE_VERSION=\"[^\"]*\"" "PACKAGE_VERSION=\"${CPACK_PACKAGE_VERSION}\"" text "${text}")
  file(WRITE ${wanted}/dkms.conf "${text}")
endif()
