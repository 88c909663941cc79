#include "medvqa/io/safetensors.h"

#include <cstring>

#include "tests/io/io_test_support.h"

namespace medvqa::io {
namespace {

const char* const kTwoFloats = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const TempFolder folder;
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I8","shape":[3],"data_offsets":[8,11]},)"
      R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
      R"("none":{"dtype":"F64","shape":[0,5],"data_offsets":[8,8]}})";
  const SafetensorsFile file(
      folder.write("f", safetensors_bytes(header, std::string("\0\0\x80?\0\0\0@abc", 11))));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const nn::HostTensor a = file.tensor("a");
  EXPECT_EQ(a.dtype, DType::f32);
  EXPECT_EQ(a.shape, (std::vector<std::int64_t>{2, 1}));
  float values[2];
  std::memcpy(values, a.bytes.data(), 8);
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], 2.0f);
  EXPECT_EQ(file.raw("b").size(), 3u);
  EXPECT_TRUE(file.tensor("none").bytes.empty());
  expect_user_error(ExitCode::model, {"\"b\" is I8", "expected F64"}, [&] { file.tensor("b"); });
  expect_user_error(ExitCode::model, {"\"c\" is missing"}, [&] { file.tensor("c"); });
}

struct Malformed {
  const char* name;
  std::string bytes;
  std::vector<std::string> parts;
};

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"a":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

std::vector<Malformed> malformed_files() {
  const std::string eight(8, 'x');
  const auto with = [](const std::string& header, const std::string& data) {
    return safetensors_bytes(header, data);
  };
  const std::string two_of = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"U8","shape":[4],"data_offsets":)";
  return {
      {"Empty", "", {"0 bytes"}},
      {"SevenBytes", "1234567", {"7 bytes"}},
      {"HugeHeader", little_endian_64(100'000'001) + "{}", {"100000001"}},
      {"HeaderBeyondTheEnd", little_endian_64(1000) + "{}", {"truncated"}},
      {"AlmostOverflowingLength", little_endian_64(~0ull) + "{}", {"header"}},
      {"NoBrace", with(" {}", ""), {"'{'"}},
      {"BrokenJson", with("{\"a\":", ""), {"header", "line 1"}},
      {"NotUtf8", with("{\"\xff\":1}", ""), {"header"}},
      {"TwiceTheSameName", with(R"({"a":1,"a":1})", ""), {"\"a\"", "twice"}},
      {"DeepHeader",
       with("{\"a\":" + std::string(50, '[') + std::string(50, ']') + "}", ""),
       {"deeper"}},
      {"EntryNoObject", with(R"({"a":1})", ""), {"\"a\"", "expected an object"}},
      {"NoDtype", with(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", eight), {"\"dtype\""}},
      {"UnknownDtype", with(entry("F33", "[2]", "[0,8]"), eight), {"\"a\"", "F33"}},
      {"NegativeDim", with(entry("F32", "[-2]", "[0,8]"), eight), {"\"a\"", "-2"}},
      {"OverflowingShape",
       with(entry("F32", "[4611686018427387904,4]", "[0,0]"), ""),
       {"\"a\"", "impossible"}},
      {"FractionalDim", with(entry("F32", "[2.0]", "[0,8]"), eight), {"\"a\"", "\"shape\""}},
      {"ShapeAndBytesDisagree", with(entry("F32", "[3]", "[0,8]"), eight), {"12 bytes", "8"}},
      {"OffsetsReversed", with(entry("F32", "[2]", "[8,0]"), eight), {"data_offsets"}},
      {"OneOffset", with(entry("F32", "[2]", "[8]"), eight), {"data_offsets"}},
      {"HugeOffsets",
       with(entry("U8", "[1]", "[18446744073709551614,18446744073709551615]"), ""),
       {"data_offsets"}},
      {"Hole", with(two_of + "[5,9]}}", std::string(9, 'x')), {"\"b\"", "hole"}},
      {"Overlap", with(two_of + "[3,7]}}", std::string(7, 'x')), {"\"b\"", "overlapping"}},
      {"Truncated", with(kTwoFloats, "1234567"), {"truncated", "8 bytes", "7"}},
      {"TrailingBytes", with(kTwoFloats, "123456789"), {"1 bytes follow"}},
      {"HalfAByte", with(entry("F4", "[3]", "[0,1]"), "x"), {"\"a\"", "impossible"}},
      {"MetadataNumber", with(R"({"__metadata__":{"n":1}})", ""), {"__metadata__", "\"n\""}},
  };
}

class MalformedSafetensors : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedSafetensors, IsRefusedByName) {
  const TempFolder folder;
  const auto path = folder.write("bad.safetensors", GetParam().bytes);
  std::vector<std::string> parts = GetParam().parts;
  parts.push_back("bad.safetensors");
  expect_user_error(ExitCode::model, parts, [&] { SafetensorsFile file(path); });
  expect_user_error(ExitCode::data, parts, [&] { SafetensorsFile file(path, ExitCode::data); });
}

INSTANTIATE_TEST_SUITE_P(Cases, MalformedSafetensors, testing::ValuesIn(malformed_files()),
                         [](const auto& one) { return std::string(one.param.name); });

TEST(SafetensorsWriter, WritesAlignedTensorsInAnyOrder) {
  const TempFolder folder;
  const auto path = folder.path() / "out.safetensors";
  SafetensorsWriter writer(path,
                           {{"odd", DType::u8, {3}},
                            {"z", DType::f32, {2}},
                            {"h", DType::bf16, {1}},
                            {"none", DType::f32, {0}}},
                           {{"format", "pt"}});
  EXPECT_FALSE(std::filesystem::exists(path));
  writer.write("odd", bytes_of("ab"));
  writer.write("z", bytes_of("12345678"));
  writer.write("h", bytes_of("xy"));
  EXPECT_THROW(writer.commit(), InternalError);
  writer.write("odd", bytes_of("c"));
  EXPECT_THROW(writer.write("odd", bytes_of("d")), InternalError);
  EXPECT_THROW(writer.write("no", bytes_of("d")), InternalError);
  writer.commit();
  const SafetensorsFile file(path);
  EXPECT_EQ(file.entries().size(), 4u);
  EXPECT_EQ(file.entries().at("z").begin, 0u);
  EXPECT_EQ(file.entries().at("odd").end, 13u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(std::memcmp(file.raw("odd").data(), "abc", 3), 0);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.raw("z").data()) % 8, 0u);
}

TEST(SafetensorsWriter, AbandonedLeavesNothing) {
  const TempFolder folder;
  { SafetensorsWriter writer(folder.path() / "x", {{"a", DType::f32, {1024}}}, {}); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace medvqa::io
