// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA of the devices: buffers are copied into the window and out of it. A
 * buffer that the device fills is clear before, so that what it leaves out
 * shows nothing that was there earlier.
 */
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/scatterlist.h>
#include <linux/virtio_ids.h>

#include "vmsg.h"

#ifdef CONFIG_HIGHMEM
#error "buffers in high memory are not supported"
#endif

#define MAX_MAPPING	SZ_64K

static struct vmsg_device *of_parent(struct device *dev)
{
	return container_of(dev, struct vmsg_device, dev);
}

static void *vmsg_dma_alloc(struct device *dev, size_t size,
			    dma_addr_t *handle, gfp_t gfp, unsigned long attrs)
{
	struct vmsg_window *window = &of_parent(dev)->bus->window;
	void *bytes;

	/* Whole pages, as vrings want them. */
	size = PAGE_ALIGN(size);
	*handle = vmsg_window_take(window, size, 0);
	if (*handle == DMA_MAPPING_ERROR)
		return NULL;
	bytes = vmsg_window_bytes(window, *handle, size);
	memset(bytes, 0, size);
	return bytes;
}

static void vmsg_dma_free(struct device *dev, size_t size, void *bytes,
			  dma_addr_t handle, unsigned long attrs)
{
	vmsg_window_give(&of_parent(dev)->bus->window, handle,
			 PAGE_ALIGN(size));
}

static void clear(struct vmsg_device *device, void *bytes, size_t size)
{
	/*
	 * A chain that the backend refuses comes back unwritten: the status
	 * of a disk request (a byte, or behind a zone's sector) must not read
	 * as success then.
	 */
	bool status = size < 16 && device->vdev.id.device == VIRTIO_ID_BLOCK;

	memset(bytes, status ? 0xff : 0, size);
}

static dma_addr_t vmsg_map_page(struct device *dev, struct page *page,
				unsigned long offset, size_t size,
				enum dma_data_direction direction,
				unsigned long attrs)
{
	struct vmsg_device *device = of_parent(dev);
	struct vmsg_window *window = &device->bus->window;
	phys_addr_t origin = page_to_phys(page) + offset;
	unsigned int i;
	dma_addr_t at;
	void *bytes;

	/* Before the driver can use an entry of a ring again. */
	for (i = 0; i < READ_ONCE(device->nqueues); i++)
		vmsg_inflight_look(&device->queues[i]);
	at = vmsg_window_take(window, size, origin);
	if (at == DMA_MAPPING_ERROR)
		return at;
	bytes = vmsg_window_bytes(window, at, size);
	if (direction == DMA_FROM_DEVICE)
		clear(device, bytes, size);
	else if (attrs & DMA_ATTR_SKIP_CPU_SYNC)
		memset(bytes, 0, size);
	else
		memcpy(bytes, phys_to_virt(origin), size);
	return at;
}

static void vmsg_sync_for_cpu(struct device *dev, dma_addr_t at, size_t size,
			      enum dma_data_direction direction)
{
	phys_addr_t origin;
	void *bytes;

	if (direction == DMA_TO_DEVICE)
		return;
	bytes = vmsg_window_bounced(&of_parent(dev)->bus->window, at, size,
				    &origin);
	if (bytes)
		memcpy(phys_to_virt(origin), bytes, size);
}

static void vmsg_sync_for_device(struct device *dev, dma_addr_t at,
				 size_t size,
				 enum dma_data_direction direction)
{
	phys_addr_t origin;
	void *bytes;

	if (direction == DMA_FROM_DEVICE)
		return;
	bytes = vmsg_window_bounced(&of_parent(dev)->bus->window, at, size,
				    &origin);
	if (bytes)
		memcpy(bytes, phys_to_virt(origin), size);
}

static void vmsg_unmap_page(struct device *dev, dma_addr_t at, size_t size,
			    enum dma_data_direction direction,
			    unsigned long attrs)
{
	if (!(attrs & DMA_ATTR_SKIP_CPU_SYNC))
		vmsg_sync_for_cpu(dev, at, size, direction);
	vmsg_window_give(&of_parent(dev)->bus->window, at, size);
}

static size_t vmsg_max_mapping_size(struct device *dev)
{
	return MAX_MAPPING;
}

#if VMSG_HAS_MAP_OPS

static dma_addr_t map_page(union virtio_map map, struct page *page,
			   unsigned long offset, size_t size,
			   enum dma_data_direction direction,
			   unsigned long attrs)
{
	return vmsg_map_page(map.dma_dev, page, offset, size, direction, attrs);
}

static void unmap_page(union virtio_map map, dma_addr_t at, size_t size,
		       enum dma_data_direction direction, unsigned long attrs)
{
	vmsg_unmap_page(map.dma_dev, at, size, direction, attrs);
}

static void sync_for_cpu(union virtio_map map, dma_addr_t at, size_t size,
			 enum dma_data_direction direction)
{
	vmsg_sync_for_cpu(map.dma_dev, at, size, direction);
}

static void sync_for_device(union virtio_map map, dma_addr_t at, size_t size,
			    enum dma_data_direction direction)
{
	vmsg_sync_for_device(map.dma_dev, at, size, direction);
}

static void *take_ring(union virtio_map map, size_t size, dma_addr_t *handle,
		       gfp_t gfp)
{
	return vmsg_dma_alloc(map.dma_dev, size, handle, gfp, 0);
}

static void give_ring(union virtio_map map, size_t size, void *bytes,
		      dma_addr_t handle, unsigned long attrs)
{
	vmsg_dma_free(map.dma_dev, size, bytes, handle, attrs);
}

static bool need_sync(union virtio_map map, dma_addr_t at)
{
	return true;
}

static int mapping_error(union virtio_map map, dma_addr_t at)
{
	return at == DMA_MAPPING_ERROR ? -ENOMEM : 0;
}

static size_t max_mapping_size(union virtio_map map)
{
	return vmsg_max_mapping_size(map.dma_dev);
}

static const struct virtio_map_ops vmsg_map_ops = {
	.map_page = map_page,
	.unmap_page = unmap_page,
	.sync_single_for_cpu = sync_for_cpu,
	.sync_single_for_device = sync_for_device,
	.alloc = take_ring,
	.free = give_ring,
	.need_sync = need_sync,
	.mapping_error = mapping_error,
	.max_mapping_size = max_mapping_size,
};

void vmsg_dma_start(struct vmsg_device *device)
{
	device->vdev.map = &vmsg_map_ops;
	device->vdev.vmap.dma_dev = &device->dev;
}

#else

static void vmsg_unmap_sg(struct device *dev, struct scatterlist *list,
			  int count, enum dma_data_direction direction,
			  unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(list, sg, count, i)
		vmsg_unmap_page(dev, sg_dma_address(sg), sg_dma_len(sg),
				direction, attrs);
}

static int vmsg_map_sg(struct device *dev, struct scatterlist *list, int count,
		       enum dma_data_direction direction, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	for_each_sg(list, sg, count, i) {
		sg_dma_len(sg) = sg->length;
		sg_dma_address(sg) = vmsg_map_page(dev, sg_page(sg),
						   sg->offset, sg->length,
						   direction, attrs);
		if (sg_dma_address(sg) == DMA_MAPPING_ERROR) {
			vmsg_unmap_sg(dev, list, i, direction,
				      attrs | DMA_ATTR_SKIP_CPU_SYNC);
			return -ENOMEM;
		}
	}
	return count;
}

static int vmsg_dma_supported(struct device *dev, u64 mask)
{
	return 1;
}

static const struct dma_map_ops vmsg_dma_ops = {
	.alloc = vmsg_dma_alloc,
	.free = vmsg_dma_free,
	.map_page = vmsg_map_page,
	.unmap_page = vmsg_unmap_page,
	.map_sg = vmsg_map_sg,
	.unmap_sg = vmsg_unmap_sg,
	.sync_single_for_cpu = vmsg_sync_for_cpu,
	.sync_single_for_device = vmsg_sync_for_device,
	.dma_supported = vmsg_dma_supported,
	.max_mapping_size = vmsg_max_mapping_size,
};

void vmsg_dma_start(struct vmsg_device *device)
{
	/* The operations before the mask: it asks them. */
	set_dma_ops(&device->dev, &vmsg_dma_ops);
	device->dev.dma_mask = &device->dma_mask;
	dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(48));
}

#endif
