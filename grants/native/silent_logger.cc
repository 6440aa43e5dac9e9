// SPDX-License-Identifier: Apache-2.0
#include <xentoollog.h>

#include "grants/native/native_devices.h"

namespace vmsg::grants {

xentoollog_logger* SilentXenLogger() {
  static xentoollog_logger logger{
      .vmessage = [](xentoollog_logger*, xentoollog_level, int, const char*, const char*,
                     va_list) {},
      .progress = [](xentoollog_logger*, const char*, const char*, int, unsigned long,
                     unsigned long) {},
      .destroy = [](xentoollog_logger*) {},
  };
  return &logger;
}

}  // namespace vmsg::grants
