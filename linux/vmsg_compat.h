/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between the kernels that this is built for, 6.1 and later. */
#ifndef VMSG_COMPAT_H
#define VMSG_COMPAT_H

#include <linux/version.h>

/*
 * Since 6.18 a transport maps buffers itself; before, it is the DMA device of
 * its queues that has operations of its own.
 */
#define VMSG_HAS_MAP_OPS (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 18, 0))

/* The queues that a driver wants, as find_vqs has them. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define VMSG_WANTED		struct virtqueue_info wanted[]
#define VMSG_WANTED_NAME(i)	(wanted[i].name)
#define VMSG_WANTED_CALLBACK(i)	(wanted[i].callback)
#define VMSG_WANTED_CONTEXT(i)	(wanted[i].ctx)
#else
#define VMSG_WANTED		vq_callback_t *callbacks[], \
				const char *const names[], \
				const bool *contexts
#define VMSG_WANTED_NAME(i)	(names[i])
#define VMSG_WANTED_CALLBACK(i)	(callbacks[i])
#define VMSG_WANTED_CONTEXT(i)	(contexts && contexts[i])
#endif

#endif
