// SPDX-License-Identifier: GPL-2.0-only
/*
 * The window: pages granted once, in which rings and bounced buffers are
 * given room. Nothing else of the guest is visible to the backend.
 */
#include <linux/bitmap.h>
#include <linux/dma-mapping.h>
#include <linux/slab.h>

#include "vmsg.h"

#define UNIT		256	/* the least that is given: a header, a status */
#define UNITS_OF_PAGE	(PAGE_SIZE / UNIT)

int vmsg_window_alloc(struct vmsg_window *window, unsigned int pages)
{
	unsigned int lists = DIV_ROUND_UP(pages, VMSG_DIRECTORY_REFS);
	int error;

	spin_lock_init(&window->lock);
	window->units = pages * UNITS_OF_PAGE;
	error = vmsg_share_alloc(&window->pages, pages);
	if (!error)
		error = vmsg_share_alloc(&window->directory, lists);
	window->used = bitmap_zalloc(window->units, GFP_KERNEL);
	window->origin = kvcalloc(window->units, sizeof(*window->origin),
				  GFP_KERNEL);
	if (error || !window->used || !window->origin) {
		vmsg_window_free(window);
		return -ENOMEM;
	}
	/* 0 is no address of a virtqueue. */
	bitmap_set(window->used, 0, UNITS_OF_PAGE);
	/* Small things below, large ones above: they do not cut each other. */
	window->large_hint = window->units / 8;
	return 0;
}

void vmsg_window_free(struct vmsg_window *window)
{
	vmsg_share_free(&window->pages);
	vmsg_share_free(&window->directory);
	bitmap_free(window->used);
	kvfree(window->origin);
	window->used = NULL;
	window->origin = NULL;
}

int vmsg_window_grant(struct vmsg_window *window, domid_t domain)
{
	struct vmsg_directory_page *list = window->directory.base;
	unsigned int i, lists = window->directory.pages;
	int error;

	error = vmsg_share_grant(&window->pages, domain);
	if (error)
		return error;
	error = vmsg_share_grant(&window->directory, domain);
	if (error) {
		vmsg_share_end(&window->pages);
		return error;
	}
	for (i = 0; i < lists; i++)
		list[i].next = cpu_to_le32(i + 1 < lists ?
					   window->directory.refs[i + 1] : 0);
	for (i = 0; i < window->pages.pages; i++)
		list[i / VMSG_DIRECTORY_REFS].ref[i % VMSG_DIRECTORY_REFS] =
			cpu_to_le32(window->pages.refs[i]);
	return 0;
}

void vmsg_window_end(struct vmsg_window *window)
{
	vmsg_share_end(&window->pages);
	vmsg_share_end(&window->directory);
}

bool vmsg_window_try_end(struct vmsg_window *window)
{
	bool pages = vmsg_share_try_end(&window->pages);

	return vmsg_share_try_end(&window->directory) && pages;
}

dma_addr_t vmsg_window_take(struct vmsg_window *window, size_t size,
			    phys_addr_t origin)
{
	unsigned long units = DIV_ROUND_UP(size, UNIT);
	bool large = units >= UNITS_OF_PAGE;
	unsigned long mask = large ? UNITS_OF_PAGE - 1 : 0;
	unsigned long at, start, flags, i;

	if (!units || units > window->units)
		return DMA_MAPPING_ERROR;
	spin_lock_irqsave(&window->lock, flags);
	start = large ? window->large_hint : 0;
	at = bitmap_find_next_zero_area(window->used, window->units, start,
					units, mask);
	if (at >= window->units && start)
		at = bitmap_find_next_zero_area(window->used, window->units, 0,
						units, mask);
	if (at < window->units) {
		bitmap_set(window->used, at, units);
		for (i = 0; i < units; i++)
			window->origin[at + i] = origin ? origin + i * UNIT : 0;
		if (large)
			window->large_hint = at + units < window->units ?
				at + units : window->units / 8;
	}
	spin_unlock_irqrestore(&window->lock, flags);
	return at < window->units ? (dma_addr_t)at * UNIT : DMA_MAPPING_ERROR;
}

void vmsg_window_give(struct vmsg_window *window, dma_addr_t at, size_t size)
{
	unsigned long flags;

	if (WARN_ON_ONCE(at % UNIT || !vmsg_window_bytes(window, at, size)))
		return;
	spin_lock_irqsave(&window->lock, flags);
	bitmap_clear(window->used, at / UNIT, DIV_ROUND_UP(size, UNIT));
	spin_unlock_irqrestore(&window->lock, flags);
}

/* The caller has it mapped, so that nobody else writes the origin. */
void *vmsg_window_bounced(struct vmsg_window *window, dma_addr_t at,
			  size_t size, phys_addr_t *origin)
{
	void *bytes = vmsg_window_bytes(window, at, size);

	if (WARN_ON_ONCE(!bytes || !window->origin[at / UNIT]))
		return NULL;
	*origin = window->origin[at / UNIT] + at % UNIT;
	return bytes;
}

void *vmsg_window_bytes(struct vmsg_window *window, u64 at, u64 size)
{
	u64 end = (u64)window->pages.pages * PAGE_SIZE;

	if (!size || at >= end || size > end - at)
		return NULL;
	return window->pages.base + at;
}
