// SPDX-License-Identifier: GPL-2.0-only
/* Pages that the backend may map: allocated, granted, and granted no more. */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/page.h>

#include "vmsg.h"

static_assert(PAGE_SIZE == VMSG_PAGE);

int vmsg_share_alloc(struct vmsg_share *share, unsigned int pages)
{
	share->base = vzalloc((size_t)pages * PAGE_SIZE);
	share->refs = kvcalloc(pages, sizeof(*share->refs), GFP_KERNEL);
	share->pages = pages;
	if (share->base && share->refs)
		return 0;
	vmsg_share_free(share);
	return -ENOMEM;
}

void vmsg_share_free(struct vmsg_share *share)
{
	vmsg_share_end(share);
	vfree(share->base);
	kvfree(share->refs);
	share->base = NULL;
	share->refs = NULL;
}

int vmsg_share_grant(struct vmsg_share *share, domid_t domain)
{
	grant_ref_t head;
	unsigned int i;

	if (WARN_ON(share->granted))
		return -EBUSY;
	if (gnttab_alloc_grant_references(share->pages, &head))
		return -ENOSPC;
	for (i = 0; i < share->pages; i++) {
		struct page *page = vmalloc_to_page(share->base + i * PAGE_SIZE);

		share->refs[i] = gnttab_claim_grant_reference(&head);
		gnttab_grant_foreign_access_ref(share->refs[i], domain,
						xen_page_to_gfn(page), 0);
	}
	share->granted = true;
	return 0;
}

/*
 * A page that is mapped nevertheless stays allocated, and its grant in use,
 * until it is not: gnttab_end_foreign_access() holds a reference to it.
 */
void vmsg_share_end(struct vmsg_share *share)
{
	unsigned int i;

	if (!share->granted)
		return;
	for (i = 0; i < share->pages; i++)
		if (share->refs[i])
			gnttab_end_foreign_access(share->refs[i], NULL);
	share->granted = false;
}

/* Nobody can map these pages from now on; true: nobody has any of them. */
bool vmsg_share_try_end(struct vmsg_share *share)
{
	unsigned int i, mapped = 0;

	if (!share->granted)
		return true;
	for (i = 0; i < share->pages; i++) {
		if (!share->refs[i])
			continue;
		if (gnttab_try_end_foreign_access(share->refs[i]))
			share->refs[i] = 0; /* xenstore's: never one of ours */
		else
			mapped++;
	}
	share->granted = mapped;
	return !mapped;
}
