#include "medvqa/image/decode.h"

#include <fmt/format.h>

#include <cctype>
#include <fstream>
#include <string>
#include <system_error>

#include "medvqa/core/error.h"
#include "src/image/decoders.h"

namespace medvqa {
namespace image_detail {

void fail_image(std::string_view name, std::string_view found, std::string_view expected,
                std::string_view remedy) {
  throw UserError(ExitCode::data,
                  fmt::format("{}: found {}, expected {}; {}", name, found, expected, remedy));
}

void fail_damaged(std::string_view name, std::string_view format, std::string_view reason) {
  fail_image(name, fmt::format("a damaged or truncated {} ({})", format, reason), "a complete file",
             "copy or download it again, or leave it out of the dataset");
}

std::size_t checked_rgb_size(std::string_view name, std::int64_t width, std::int64_t height,
                             const DecodeLimits& limits) {
  if (width <= 0 || height <= 0) {
    fail_image(name, fmt::format("a picture of {} x {} pixels", width, height),
               "at least one pixel", "leave it out of the dataset");
  }
  // Both sides are below 2^31 in every format here, so the product fits.
  if (width * height > limits.max_pixels) {
    fail_image(name, fmt::format("a picture of {} x {} pixels", width, height),
               fmt::format("at most {} pixels", limits.max_pixels),
               "scale it down before training");
  }
  return static_cast<std::size_t>(width * height) * 3;
}

namespace {

bool has_at(Bytes bytes, std::size_t offset, std::string_view magic) {
  if (bytes.size() < offset + magic.size()) return false;
  for (std::size_t i = 0; i < magic.size(); ++i) {
    if (static_cast<char>(bytes[offset + i]) != magic[i]) return false;
  }
  return true;
}

// Formats people do put into such folders, so that the message can name them.
std::string name_of_type(Bytes bytes) {
  using namespace std::string_view_literals;
  if (bytes.empty()) return "an empty file";
  if (has_at(bytes, 0, "GIF8"sv)) return "a GIF";
  if (has_at(bytes, 0, "II*\0"sv) || has_at(bytes, 0, "MM\0*"sv)) return "a TIFF";
  if (has_at(bytes, 0, "RIFF"sv) && has_at(bytes, 8, "WEBP"sv)) return "a WebP";
  if (has_at(bytes, 128, "DICM"sv)) return "a DICOM file";
  if (has_at(bytes, 0, "\0\0\0\x0cjP  "sv) || has_at(bytes, 0, "\xff\x4f\xff\x51"sv)) {
    return "a JPEG 2000";
  }
  if (has_at(bytes, 4, "ftypavif"sv)) return "an AVIF";
  if (has_at(bytes, 4, "ftyphei"sv)) return "a HEIC";
  if (has_at(bytes, 0, "\x1f\x8b"sv)) return "a gzip file";
  if (has_at(bytes, 0, "PK\x03\x04"sv)) return "a ZIP file";
  if (has_at(bytes, 0, "%PDF"sv)) return "a PDF";
  std::string hex;
  for (std::size_t i = 0; i < bytes.size() && i < 8; ++i) {
    hex += fmt::format("{}{:02x}", i == 0 ? "" : " ", static_cast<unsigned>(bytes[i]));
  }
  return fmt::format("an unknown type (first bytes {})", hex);
}

}  // namespace
}  // namespace image_detail

Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeLimits& limits) {
  using namespace image_detail;
  if (has_at(bytes, 0, "\xff\xd8\xff")) return decode_jpeg(bytes, name, limits);
  if (has_at(bytes, 0, "\x89PNG\r\n\x1a\n")) return decode_png(bytes, name, limits);
  if (has_at(bytes, 0, "BM")) return decode_bmp(bytes, name, limits);
  fail_image(name, name_of_type(bytes), "a JPEG, PNG or BMP", "convert it, for example to PNG");
}

Image load_image(const std::filesystem::path& path, const DecodeLimits& limits) {
  using image_detail::fail_image;
  const std::string name = path.string();
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    fail_image(name, std::filesystem::exists(path, error) ? "something else" : "nothing",
               "an image file", "check the path in the dataset");
  }
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  if (error) fail_image(name, error.message(), "a readable file", "check its permissions");
  if (size > static_cast<std::uintmax_t>(limits.max_bytes)) {
    fail_image(name, fmt::format("a file of {} bytes", size),
               fmt::format("at most {} bytes", limits.max_bytes), "convert it to a smaller one");
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(size));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file || file.gcount() != static_cast<std::streamsize>(bytes.size())) {
    fail_image(name, "a file that cannot be read", "a readable file", "check its permissions");
  }
  return decode_image(bytes, name, limits);
}

}  // namespace medvqa
