# SPDX-License-Identifier: Apache-2.0
# virtio-msg-xen-dkms: linux/, built by DKMS for each kernel of a guest.
set(dkms ${CMAKE_CURRENT_SOURCE_DIR}/dkms)
set(tree /usr/src/virtio-msg-xen-${PROJECT_VERSION})
configure_file(${dkms}/dkms.conf dkms/dkms.conf @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dkms/dkms.conf DESTINATION ${tree} COMPONENT dkms)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/linux DESTINATION ${tree} COMPONENT dkms
  FILES_MATCHING PATTERN "*.[ch]" PATTERN Kbuild PATTERN tests EXCLUDE)
install(PROGRAMS ${dkms}/initramfs-again DESTINATION ${tree} COMPONENT dkms)
# initramfs-tools and DKMS look there, whatever the prefix.
install(PROGRAMS ${dkms}/initramfs-hook RENAME virtio-msg-xen
  DESTINATION /usr/share/initramfs-tools/hooks COMPONENT dkms)
install(PROGRAMS ${dkms}/initramfs-wait RENAME virtio-msg-xen
  DESTINATION /usr/share/initramfs-tools/scripts/local-top COMPONENT dkms)
install(FILES ${docs}/guest-linux.md
  DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/virtio-msg-xen-dkms COMPONENT dkms)

set(CPACK_DEBIAN_DKMS_DESCRIPTION "driver of virtio-msg devices, for the kernel of a Xen guest
The kernel module virtio_msg_xen, built for each kernel by DKMS, with which
the disks, entropy sources and consoles that a vmsgd serves are used by the
guest's own virtio drivers; its root file system can be one of the disks.")
set(CPACK_DEBIAN_DKMS_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_DKMS_PACKAGE_SECTION kernel)
set(CPACK_DEBIAN_DKMS_PACKAGE_SHLIBDEPS OFF)
set(CPACK_DEBIAN_DKMS_PACKAGE_DEPENDS "dkms (>= 3.0.10)")
set(CPACK_DEBIAN_DKMS_PACKAGE_RECOMMENDS initramfs-tools)
set(CPACK_DEBIAN_DKMS_PACKAGE_CONTROL_EXTRA "${dkms}/postinst;${dkms}/prerm;${dkms}/postrm")
set(CPACK_PRE_BUILD_SCRIPTS ${dkms}/version.cmake)
