// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes the device of a disk ask for a reset: the available index of its first
 * queue jumps, the device is told, and the index is mended when it has said
 * that it needs one, in its interrupt. Nothing else may be on its way.
 */
#include <linux/blkdev.h>
#include <linux/module.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

static char *disk;
module_param(disk, charp, 0444);

static struct virtio_driver *driver;
static void (*told)(struct virtio_device *vdev);
static struct vring_avail *avail;
static __virtio16 right;

static void mend(struct virtio_device *vdev)
{
	WRITE_ONCE(avail->idx, right);
	driver->config_changed = told;
	told(vdev);
}

static int __init break_queue(void)
{
	struct block_device *bdev = blkdev_get_by_path(disk, FMODE_READ, NULL);
	struct virtio_device *vdev;
	struct virtqueue *vq;

	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	vdev = dev_to_virtio(disk_to_dev(bdev->bd_disk)->parent);
	vq = list_first_entry(&vdev->vqs, struct virtqueue, list);
	avail = virtqueue_get_vring(vq)->avail;
	right = avail->idx;
	driver = drv_to_virtio(vdev->dev.driver);
	told = driver->config_changed;
	driver->config_changed = mend;
	WRITE_ONCE(avail->idx, cpu_to_virtio16(vdev, virtio16_to_cpu(vdev, right) + 0x4000));
	virtqueue_notify(vq);
	blkdev_put(bdev, FMODE_READ);
	return 0;
}
module_init(break_queue);

static void __exit done(void)
{
}
module_exit(done);

MODULE_DESCRIPTION("For tests: makes a virtio disk ask for a reset");
MODULE_LICENSE("GPL");
