// SPDX-License-Identifier: Apache-2.0
// Preloaded into Debian's xenstored: what it asks of Xen, answered so that it runs on plain Linux.
// The folder $VMSG_WITHOUT_XEN holds a domain's ring page as the file <domid>.ring; domains exist
// that have one. Event channels are a FIFO, `doorbell`: a port's 4-byte number in it is its event.
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

static int doorbell = -1;
static int some_handle;

static const char* in_folder(const char* name) {
  static char path[512];
  const char* folder = getenv("VMSG_WITHOUT_XEN");
  snprintf(path, sizeof(path), "%s/%s", folder ? folder : ".", name);
  return path;
}

static const char* ring_of(uint32_t domain) {
  char name[32];
  snprintf(name, sizeof(name), "%u.ring", domain);
  return in_folder(name);
}

// --- libxenctrl: which domains there are

xc_interface* xc_interface_open(xentoollog_logger* log, xentoollog_logger* dombuild,
                                unsigned flags) {
  (void)log, (void)dombuild, (void)flags;
  return (xc_interface*)&some_handle;
}
int xc_interface_close(xc_interface* xc) {
  (void)xc;
  return 0;
}
int xc_domain_getinfo(xc_interface* xc, uint32_t first, unsigned max, xc_dominfo_t* info) {
  (void)xc, (void)max;
  if (access(ring_of(first), F_OK) != 0) return 0;
  memset(info, 0, sizeof(*info));
  info->domid = first;
  return 1;
}

// --- libxenevtchn: a port p of domain d is p + 1000 * d

xenevtchn_handle* xenevtchn_open(xentoollog_logger* log, unsigned flags) {
  (void)log, (void)flags;
  doorbell = open(in_folder("doorbell"), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  return doorbell < 0 ? NULL : (xenevtchn_handle*)&some_handle;
}
xenevtchn_handle* xenevtchn_fdopen(xentoollog_logger* log, int fd, unsigned flags) {
  (void)fd;
  return xenevtchn_open(log, flags);
}
int xenevtchn_close(xenevtchn_handle* handle) {
  (void)handle;
  return 0;
}
int xenevtchn_fd(xenevtchn_handle* handle) {
  (void)handle;
  return doorbell;
}
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle* handle, uint32_t domain,
                                                     evtchn_port_t port) {
  (void)handle;
  return (int)(port + 1000 * domain);
}
xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle* handle, unsigned virq) {
  (void)handle;
  return (int)(900 + virq);
}
xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle* handle) {
  uint32_t port;
  (void)handle;
  return read(doorbell, &port, sizeof(port)) == sizeof(port) ? (int)port : -1;
}
int xenevtchn_notify(xenevtchn_handle* handle, evtchn_port_t port) {
  (void)handle, (void)port;  // the other end polls its ring
  return 0;
}
int xenevtchn_unbind(xenevtchn_handle* handle, evtchn_port_t port) {
  (void)handle, (void)port;
  return 0;
}
int xenevtchn_unmask(xenevtchn_handle* handle, evtchn_port_t port) {
  (void)handle, (void)port;
  return 0;
}

// --- libxengnttab: ring pages

xengnttab_handle* xengnttab_open(xentoollog_logger* log, unsigned flags) {
  (void)log, (void)flags;
  return (xengnttab_handle*)&some_handle;
}
int xengnttab_close(xengnttab_handle* handle) {
  (void)handle;
  return 0;
}
int xengnttab_set_max_grants(xengnttab_handle* handle, uint32_t count) {
  (void)handle, (void)count;
  return 0;
}
void* xengnttab_map_grant_ref(xengnttab_handle* handle, uint32_t domain, uint32_t ref, int prot) {
  (void)handle, (void)ref;
  const int file = open(ring_of(domain), O_RDWR | O_CLOEXEC);
  if (file < 0) return NULL;
  void* page = mmap(NULL, 4096, prot, MAP_SHARED, file, 0);
  close(file);
  return page == MAP_FAILED ? NULL : page;
}
int xengnttab_unmap(xengnttab_handle* handle, void* start, uint32_t pages) {
  (void)handle;
  return munmap(start, (size_t)pages * 4096);
}

// --- Dom0's own ring, which the kernel names in /proc/xen

static int open_file(const char* path, int flags, int mode) {
  static int (*next)(const char*, int, ...);
  if (next == NULL) next = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, "open");
  if (strcmp(path, "/proc/xen/xsd_kva") == 0) return next(ring_of(0), O_RDWR);
  if (strcmp(path, "/proc/xen/xsd_port") == 0) return next(in_folder("port"), O_RDONLY);
  return next(path, flags, mode);
}
int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = va_arg(rest, int);
  va_end(rest);
  return open_file(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = va_arg(rest, int);
  va_end(rest);
  return open_file(path, flags, mode);
}
// glibc's names for open with a checked number of arguments.
// NOLINTNEXTLINE(bugprone-reserved-identifier)
int __open_2(const char* path, int flags) { return open_file(path, flags, 0); }
// NOLINTNEXTLINE(bugprone-reserved-identifier)
int __open64_2(const char* path, int flags) { return open_file(path, flags, 0); }
