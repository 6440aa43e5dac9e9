// SPDX-License-Identifier: Apache-2.0
// The program vmsg-decode as its user meets it: arguments, output, exit status.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/virtio-msg/hex_bytes.h"
#include "virtio-msg/capture.h"

namespace vmsg::wire {
namespace {

using testing::HasSubstr;

class VmsgDecode : public testing::Test {
 protected:
  VmsgDecode() {
    std::string name = testing::TempDir() + "/vmsg-decode-XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~VmsgDecode() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::vector<std::byte>& bytes) {
    const std::string path = folder_ + "/input";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  struct Result {
    int status;
    std::string out, err;
  };
  Result Decode(const std::string& arguments) {
    const std::string err = folder_ + "/err";
    FILE* pipe = popen((std::string(VMSG_DECODE) + " " + arguments + " 2>" + err).c_str(), "r");
    Result result{};
    char buffer[4096];
    while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe))
      result.out.append(buffer, got);
    const int status = pclose(pipe);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    std::ifstream in(err);
    result.err.assign(std::istreambuf_iterator<char>(in), {});
    return result;
  }

  std::string folder_;
};

void Append(std::vector<std::byte>& file, std::span<const std::byte> bytes) {
  file.insert(file.end(), bytes.begin(), bytes.end());
}

void AppendPacket(std::vector<std::byte>& file, uint64_t time_ns, CaptureDirection direction,
                  const std::string& hex) {
  const auto message = Hex(hex);
  Append(file, CapturePacketHeader({time_ns, direction, 3, 0, message}));
  Append(file, message);
}

std::vector<std::byte> SomeCapture() {
  std::vector<std::byte> file;
  Append(file, CaptureFileHeader());
  constexpr auto kOut = CaptureDirection::kDriverToDevice, kIn = CaptureDirection::kDeviceToDriver;
  AppendPacket(file, 5'000'000'000, kOut, "0005 0100 0700 1000 00000000 08000000");
  AppendPacket(file, 5'000'123'456, kIn, "0105 0100 0700 1500 03000000 00000000 01000000 ff");
  AppendPacket(file, 6'500'000'000, kOut, "0042 0100 0000 0c00 05000000");
  AppendPacket(file, 4'999'999'000, kIn, "00ff");
  return file;
}

constexpr char kSomeText[] =
    "0.000000 g3/0 -> GET_CONFIG dev=1 token=7 offset=0 length=8\n"
    "0.000123 g3/0 <- GET_CONFIG response dev=1 token=7 generation=3 offset=0 length=1 data=ff\n"
    "1.500000 g3/0 -> malformed: the driver may not send EVENT_USED; 0042010000000c0005000000\n"
    "-0.000001 g3/0 <- malformed: record of 2 bytes, the header has 8; 00ff\n";

TEST_F(VmsgDecode, PrintsACapture) {
  const Result result = Decode(Write(SomeCapture()));
  EXPECT_EQ(result.out, kSomeText);
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(result.status, 0);
}

TEST_F(VmsgDecode, ReadsStandardInput) {
  const Result result = Decode("- < " + Write(SomeCapture()));
  EXPECT_EQ(result.out, kSomeText);
  EXPECT_EQ(result.status, 0);
}

TEST_F(VmsgDecode, ReadsAPipeThatDeliversInSmallPieces) {
  const std::string command = "dd status=none bs=7 if=" + Write(SomeCapture()) + " | " VMSG_DECODE;
  FILE* pipe = popen((command + " -").c_str(), "r");
  std::string out(4096, 0);
  out.resize(fread(out.data(), 1, out.size(), pipe));
  EXPECT_EQ(pclose(pipe), 0);
  EXPECT_EQ(out, kSomeText);
}

TEST_F(VmsgDecode, ACutCaptureIsPrintedAsFarAsItGoes) {
  std::vector<std::byte> file = SomeCapture();
  file.pop_back();
  const Result result = Decode(Write(file));
  EXPECT_THAT(result.out, HasSubstr("1.500000"));
  EXPECT_THAT(result.err, HasSubstr("the capture ends inside the packet at offset"));
  EXPECT_EQ(result.status, 1);
}

TEST_F(VmsgDecode, ACaptureWithoutMessagesIsFine) {
  std::vector<std::byte> file;
  Append(file, CaptureFileHeader());
  const Result result = Decode(Write(file));
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.status, 0);
}

TEST_F(VmsgDecode, ABadPacketEndsItWithItsOffset) {
  std::vector<std::byte> file = SomeCapture();
  Append(file, Hex("00000000 00000000 ffffffff ffffffff 0000 0000 00000000"));
  const Result result = Decode(Write(file));
  EXPECT_EQ(result.out, kSomeText);
  EXPECT_THAT(result.err, HasSubstr("packet of 4294967295 bytes"));
  EXPECT_EQ(result.status, 1);
}

TEST_F(VmsgDecode, RefusesWhatIsNoCapture) {
  EXPECT_THAT(Decode(Write(Hex("00"))).err, HasSubstr("not a capture: 1 bytes"));
  EXPECT_EQ(Decode(Write(Hex(""))).status, 1);
  const Result text = Decode(Write(std::vector<std::byte>(100, std::byte{'a'})));
  EXPECT_THAT(text.err, HasSubstr("not a pcap file"));
  EXPECT_EQ(text.status, 1);
}

TEST_F(VmsgDecode, SaysWhichFileItCannotRead) {
  const Result missing = Decode(folder_ + "/none");
  EXPECT_THAT(missing.err, HasSubstr("cannot open " + folder_ + "/none: No such file"));
  EXPECT_EQ(missing.status, 1);
  const Result folder = Decode(folder_);
  EXPECT_THAT(folder.err, HasSubstr("cannot read: Is a directory"));
  EXPECT_EQ(folder.status, 1);
}

TEST_F(VmsgDecode, PrintsARawStreamOfPaddedRecords) {
  const Result result = Decode("--raw " + Write(Hex("0042 0100 0000 0c00 05000000 00000000"
                                                    "0203 0000 0100 0c00 2a000000 00000000")));
  EXPECT_EQ(result.out,
            "0x0000 EVENT_USED dev=1 token=0 vq_index=5\n"
            "0x0010 PING token=1 data=0x2a\n");
  EXPECT_EQ(result.status, 0);
}

TEST_F(VmsgDecode, RawSkipsUnusedMemoryAndGoesOnAfterNonsense) {
  const Result result =
      Decode("--raw " + Write(Hex("0000000000000000 0000000000000000 0102030405060700"
                                  "0042 0100 0000 0c00 05000000 00000000 0000000000000000")));
  EXPECT_EQ(result.out,
            "0x0010 malformed: msg_size is 7, the header alone has 8; 0102030405060700\n"
            "0x0018 EVENT_USED dev=1 token=0 vq_index=5\n");
  EXPECT_EQ(result.status, 0);
}

TEST_F(VmsgDecode, RawThatEndsInsideARecord) {
  const Result result = Decode("--raw " + Write(Hex("0042 0100 0000 0c00 0500")));
  EXPECT_THAT(result.err, HasSubstr("ends inside the record at offset 0"));
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(Decode("--raw " + Write(Hex("004201"))).status, 1);
}

TEST_F(VmsgDecode, HelpAndUsage) {
  const Result help = Decode("--help");
  EXPECT_THAT(help.out, HasSubstr("Usage: vmsg-decode"));
  EXPECT_EQ(help.status, 0);
  for (const char* bad : {"", "a b", "--what -"}) {
    const Result result = Decode(bad);
    EXPECT_THAT(result.err, HasSubstr("Usage: vmsg-decode")) << bad;
    EXPECT_EQ(result.status, 2) << bad;
  }
}

}  // namespace
}  // namespace vmsg::wire
