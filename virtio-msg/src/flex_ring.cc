// SPDX-License-Identifier: Apache-2.0
#include "virtio-msg/flex_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace vmsg::wire {
namespace {

constexpr size_t kWord = 8;  // records start on, and are padded to, a multiple of this
constexpr size_t kHeaderBytes = 8;
constexpr size_t kMaxRingBytes = size_t{1} << 31;  // free-running cursors have 32 bits

static_assert(std::endian::native == std::endian::little);
static_assert(std::atomic_ref<uint64_t>::is_always_lock_free &&
              std::atomic_ref<uint32_t>::is_always_lock_free);

// The words of the interface page. A store to one of our words followed by a load of one of the
// peer's, both sequentially consistent, is the full barrier of the binding (section 3): either the
// peer sees our store or we see its.
uint32_t Load(uint32_t& word) { return std::atomic_ref(word).load(std::memory_order_seq_cst); }
void Store(uint32_t& word, uint32_t value) {
  std::atomic_ref(word).store(value, std::memory_order_seq_cst);
}

// The peer may write to the data at any time, so each word of it is accessed once, by an atomic
// access that costs what a plain one does.
uint64_t LoadData(const std::byte* p) {
  uint64_t* word = reinterpret_cast<uint64_t*>(const_cast<std::byte*>(p));
  return std::atomic_ref(*word).load(std::memory_order_relaxed);
}
void StoreData(std::byte* p, uint64_t value) {
  std::atomic_ref(*reinterpret_cast<uint64_t*>(p)).store(value, std::memory_order_relaxed);
}

absl::Status CheckShape(std::span<const std::byte> data) {
  if (data.size() < kWord || data.size() > kMaxRingBytes || !std::has_single_bit(data.size())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ring of ", data.size(), " bytes: not a power of two from ", kWord, " to ", kMaxRingBytes));
  }
  if (reinterpret_cast<uintptr_t>(data.data()) % kWord != 0) {
    return absl::InvalidArgumentError("ring data is not aligned to 8 bytes");
  }
  return absl::OkStatus();
}

}  // namespace

RingProducer::RingProducer(RingDirection* shared, std::span<std::byte> data, bool suppression,
                           uint32_t start)
    : shared_(shared),
      data_(data),
      suppression_(suppression),
      prod_(start),
      published_(start),
      cons_(start),
      broken_(CheckShape(data)) {}

absl::StatusOr<size_t> RingProducer::Free() {
  if (!broken_.ok()) return broken_;
  const uint32_t cons = Load(shared_->cons);
  if (cons - cons_ > published_ - cons_ || cons % kWord != 0) {
    broken_ = absl::DataLossError(absl::StrCat("ring broken: the peer's cons is ", cons,
                                               ", expected a multiple of 8 from ", cons_, " to ",
                                               published_));
    return broken_;
  }
  cons_ = cons;
  return data_.size() - (prod_ - cons_);
}

absl::StatusOr<bool> RingProducer::Push(std::span<const std::byte> message) {
  if (!broken_.ok()) return broken_;
  const size_t size = PaddedRecordSize(message.size());
  if (message.empty() || size > data_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("record of ", message.size(), " bytes, the ring takes 1 to ", data_.size()));
  }
  // The last view of the peer's cursor is enough while there is room; a new one costs a cache miss.
  if (size > data_.size() - (prod_ - cons_)) {
    absl::StatusOr<size_t> free = Free();
    if (!free.ok()) return free.status();
    if (size > *free) return false;
  }
  const size_t mask = data_.size() - 1;
  size_t done = 0;
  for (; done + kWord <= message.size(); done += kWord) {
    uint64_t word;
    std::memcpy(&word, message.data() + done, kWord);
    StoreData(&data_[(prod_ + done) & mask], word);
  }
  if (done < message.size()) {
    uint64_t word = 0;
    std::memcpy(&word, message.data() + done, message.size() - done);
    StoreData(&data_[(prod_ + done) & mask], word);
  }
  prod_ += static_cast<uint32_t>(size);
  return true;
}

bool RingProducer::Publish() {
  const uint32_t old = published_;
  if (prod_ == old) return false;
  published_ = prod_;
  Store(shared_->prod, prod_);
  if (!suppression_) return true;
  const uint32_t event = Load(shared_->event);
  return prod_ - event - 1 < prod_ - old;
}

void RingProducer::WantSpace(bool want) {
  if (!suppression_ || want == want_space_) return;
  want_space_ = want;
  Store(shared_->want_space, want ? 1 : 0);
}

RingConsumer::RingConsumer(RingDirection* shared, std::span<const std::byte> data, bool suppression,
                           size_t max_message_size, uint32_t start)
    : shared_(shared),
      data_(data),
      suppression_(suppression),
      max_message_size_(max_message_size),
      cons_(start),
      released_(start),
      prod_(start),
      broken_(CheckShape(data)) {}

absl::Status RingConsumer::LookAtProd() {
  const uint32_t prod = Load(shared_->prod);
  const uint32_t ahead = prod - released_;
  if (ahead < prod_ - released_ || ahead > data_.size() || prod % kWord != 0) {
    broken_ = absl::DataLossError(absl::StrCat("ring broken: the peer's prod is ", prod,
                                               ", expected a multiple of 8 from ", prod_, " to ",
                                               static_cast<uint32_t>(released_ + data_.size())));
    return broken_;
  }
  prod_ = prod;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<size_t>> RingConsumer::Pop(std::span<std::byte> record) {
  if (!broken_.ok()) return broken_;
  if (prod_ == cons_) {
    absl::Status status = LookAtProd();
    if (!status.ok()) return status;
    if (prod_ == cons_) return std::nullopt;
  }
  const size_t mask = data_.size() - 1;
  const size_t produced = prod_ - cons_;
  // The one read of the header: what is decided here and what the caller gets are the same bytes.
  const uint64_t header = LoadData(&data_[cons_ & mask]);
  const size_t size = header >> 48;
  if (size < kHeaderBytes || size > max_message_size_ || PaddedRecordSize(size) > produced) {
    broken_ = absl::DataLossError(absl::StrCat(
        "ring broken: a record's msg_size is ", size, ", the limits are ", kHeaderBytes, " and ",
        max_message_size_, ", and ", produced, " bytes were produced"));
    return broken_;
  }
  if (record.size() < size) {
    return absl::InvalidArgumentError(
        absl::StrCat("room for ", record.size(), " bytes given, the record has ", size));
  }
  std::memcpy(record.data(), &header, kHeaderBytes);
  size_t done = kHeaderBytes;
  for (; done + kWord <= size; done += kWord) {
    const uint64_t word = LoadData(&data_[(cons_ + done) & mask]);
    std::memcpy(record.data() + done, &word, kWord);
  }
  if (done < size) {
    const uint64_t word = LoadData(&data_[(cons_ + done) & mask]);
    std::memcpy(record.data() + done, &word, size - done);
  }
  cons_ += static_cast<uint32_t>(PaddedRecordSize(size));
  return size;
}

bool RingConsumer::Release() {
  if (cons_ == released_) return false;
  released_ = cons_;
  Store(shared_->cons, cons_);
  if (!suppression_) return true;
  return Load(shared_->want_space) != 0;
}

absl::StatusOr<bool> RingConsumer::Arm() {
  if (!broken_.ok()) return broken_;
  if (suppression_) Store(shared_->event, cons_);
  absl::Status status = LookAtProd();
  if (!status.ok()) return status;
  return prod_ != cons_;
}

bool RingConsumer::HasMore() const {
  return !broken_.ok() || prod_ != cons_ || Load(shared_->prod) != cons_;
}

}  // namespace vmsg::wire
