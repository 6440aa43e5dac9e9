// SPDX-License-Identifier: Apache-2.0
// Runs the fuzzer's entry on a corpus that follows from seeds, so that each build has it.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "virtio-msg/capture.h"
#include "virtio-msg/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace vmsg::wire {
namespace {

using Bytes = std::vector<uint8_t>;

void Feed(const Bytes& input) { LLVMFuzzerTestOneInput(input.data(), input.size()); }

// A well-formed header of a message of the table with a random payload of about the right size.
Bytes LikelyRecord(std::mt19937& random) {
  const auto messages = Profile::V1().messages();
  const MessageSpec& spec = messages[random() % messages.size()];
  const bool response = spec.kind == Kind::kRequest && random() % 2 == 0;
  const PayloadSpec& payload = response ? spec.response : spec.request;
  size_t size = kHeaderSize + payload.fixed;
  size_t variable = 0;
  if (payload.variable_unit != 0) variable = random() % (payload.variable_max + 1);
  size += variable;
  Bytes record(size);
  for (uint8_t& byte : record) byte = static_cast<uint8_t>(random());
  const bool bus = spec.message_class == MessageClass::kBus;
  record[0] = static_cast<uint8_t>((response ? kTypeResponse : 0) | (bus ? kTypeBus : 0));
  record[1] = static_cast<uint8_t>(static_cast<uint16_t>(spec.id));
  if (bus) record[2] = record[3] = 0;
  record[6] = static_cast<uint8_t>(size);
  record[7] = static_cast<uint8_t>(size >> 8);
  if (payload.count_field != kNoCount && random() % 4 != 0) {
    const FieldSpec& field = payload.fields[payload.count_field];
    const uint32_t count = static_cast<uint32_t>(variable * 8 / payload.count_bits);
    std::memcpy(&record[kHeaderSize + field.offset], &count, field.width);
  }
  return record;
}

void Mutate(Bytes& bytes, std::mt19937& random) {
  for (uint32_t i = random() % 4; i > 0 && !bytes.empty(); --i) {
    switch (random() % 4) {
      case 0:
        bytes[random() % bytes.size()] = static_cast<uint8_t>(random());
        break;
      case 1:
        bytes[random() % bytes.size()] ^= static_cast<uint8_t>(1u << random() % 8);
        break;
      case 2:
        bytes.resize(random() % (bytes.size() + 1));
        break;
      default:
        bytes.insert(bytes.end(), random() % 9, static_cast<uint8_t>(random()));
        break;
    }
  }
}

TEST(SeededCorpus, RandomBytes) {
  std::mt19937 random(1);
  for (int i = 0; i < 5000; ++i) {
    Bytes bytes(random() % 300);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    Feed(bytes);
  }
}

TEST(SeededCorpus, MessagesWithMistakes) {
  std::mt19937 random(2);
  for (int i = 0; i < 6000; ++i) {
    Bytes record = LikelyRecord(random);
    Feed(record);
    Mutate(record, random);
    Feed(record);
  }
}

TEST(SeededCorpus, CapturesWithMistakes) {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    const auto header = CaptureFileHeader();
    Bytes file(sizeof(header));
    std::memcpy(file.data(), header.data(), header.size());
    for (uint32_t packets = random() % 4; packets > 0; --packets) {
      const Bytes record = LikelyRecord(random);
      const auto packet = CapturePacketHeader(
          {random(), CaptureDirection::kDriverToDevice, 1, 0, std::as_bytes(std::span(record))});
      const auto* begin = reinterpret_cast<const uint8_t*>(packet.data());
      file.insert(file.end(), begin, begin + packet.size());
      file.insert(file.end(), record.begin(), record.end());
    }
    Feed(file);
    Mutate(file, random);
    Feed(file);
  }
}

TEST(SeededCorpus, RingsWithMistakes) {
  std::mt19937 random(4);
  for (int i = 0; i < 1500; ++i) {
    Bytes ring(4);
    while (ring.size() < 500) {
      const Bytes record = LikelyRecord(random);
      ring.insert(ring.end(), record.begin(), record.end());
      ring.resize((ring.size() - 4 + 7) / 8 * 8 + 4);
    }
    // Mostly a possible prod, so that records are popped.
    const uint16_t prod = static_cast<uint16_t>(random() % 65 * 8 + (random() % 8 == 0));
    std::memcpy(ring.data(), &prod, sizeof(prod));
    Feed(ring);
    Mutate(ring, random);
    Feed(ring);
  }
}

}  // namespace
}  // namespace vmsg::wire
