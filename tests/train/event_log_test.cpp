// Event files against numbers and bytes from elsewhere; TensorBoard's own reader is asked in
// tests/cli/events_check.py.
#include "medvqa/train/event_log.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tests/train/train_test_support.h"

namespace medvqa::train {
namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int v : values) out += static_cast<char>(v);
  return out;
}

std::uint64_t little_endian(const std::string& s, std::size_t at, std::size_t count) {
  std::uint64_t v = 0;
  for (std::size_t i = 0; i < count; ++i) {
    v |= std::uint64_t{static_cast<unsigned char>(s.at(at + i))} << (8 * i);
  }
  return v;
}

// The payloads of a file; checks every length and checksum on the way.
std::vector<std::string> records_of(const std::string& file) {
  const auto masked = [](std::string_view data) {
    const std::uint32_t c = crc32c(data);
    return (c >> 15 | c << 17) + 0xa282ead8u;
  };
  std::vector<std::string> payloads;
  for (std::size_t at = 0; at < file.size();) {
    const auto length = static_cast<std::size_t>(little_endian(file, at, 8));
    EXPECT_EQ(little_endian(file, at + 8, 4), masked(file.substr(at, 8)));
    payloads.push_back(file.substr(at + 12, length));
    EXPECT_EQ(little_endian(file, at + 12 + length, 4), masked(payloads.back()));
    at += length + 16;
  }
  return payloads;
}

// RFC 3720, appendix B.4, and the usual check value.
TEST(EventLog, ChecksumIsCastagnoli) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62A8AB43u);
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  EXPECT_EQ(crc32c(rising), 0x46DD794Eu);
  EXPECT_EQ(crc32c(falling), 0x113FDB5Cu);
}

// Written out by hand from event.proto and summary.proto.
TEST(EventLog, EventsAreTheDocumentedBytes) {
  // 1.5 as a double: 3f f8 00.., least byte first.
  const std::string time = bytes({0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f});
  EXPECT_EQ(version_event(1.5), time + bytes({0x1a, 13}) + "brain.Event:2");
  EXPECT_EQ(restart_event(1.5, 4), time + bytes({0x10, 4, 0x3a, 2, 0x08, 1}));
  // 300 is ac 02 as a varint; 0.5f is 3f000000.
  const std::string value = bytes({0x0a, 1}) + "a" + bytes({0x15, 0, 0, 0, 0x3f});
  const std::string other = bytes({0x0a, 2}) + "bc" + bytes({0x15, 0, 0, 0x80, 0xbf});
  const std::string summary = bytes({0x0a, 8}) + value + bytes({0x0a, 9}) + other;
  EXPECT_EQ(scalar_event(1.5, 300, {{"a", 0.5}, {"bc", -1}}),
            time + bytes({0x10, 0xac, 0x02, 0x2a, 21}) + summary);
}

TEST(EventLog, ARecordIsLengthPayloadAndMaskedChecksums) {
  // The first record of every event file TensorBoard's writer makes at time 0 begins with these.
  const std::string record = event_record("abc");
  ASSERT_EQ(record.size(), 8u + 4 + 3 + 4);
  EXPECT_EQ(record.substr(0, 8), bytes({3, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(record.substr(12, 3), "abc");
  EXPECT_EQ(records_of(record), std::vector<std::string>{"abc"});
  // crc32c("abc") = 0x364b3fb7; rotated right by 15 and added to the mask: 0x21f1576e.
  EXPECT_EQ(little_endian(record, 15, 4), 0x21f1576eu);
}

TEST(EventLog, FilesSortInTheOrderTheyWereMade) {
  const TempFolder folder;
  EventLog first(folder.path(), 1);
  first.add(1, {{"train/loss", 2.0}});
  EventLog second(folder.path(), 7);
  EXPECT_LT(first.path(), second.path());
  const auto whole = records_of(bytes_of_file(first.path()));
  ASSERT_EQ(whole.size(), 2u);
  EXPECT_NE(whole[0].find("brain.Event:2"), std::string::npos);
  EXPECT_NE(whole[1].find("train/loss"), std::string::npos);
  const auto resumed = records_of(bytes_of_file(second.path()));
  ASSERT_EQ(resumed.size(), 2u);
  EXPECT_EQ(resumed[1].substr(9), bytes({0x10, 7, 0x3a, 2, 0x08, 1}));
  EXPECT_EQ(first.path().filename().string().rfind("events.out.tfevents.", 0), 0u);
}

TEST(EventLog, AFolderThatIsNotThereIsAnIoError) {
  const TempFolder folder;
  expect_user_error(ExitCode::io, {"events.out.tfevents"},
                    [&] { EventLog(folder.path() / "none", 1); });
}

}  // namespace
}  // namespace medvqa::train
