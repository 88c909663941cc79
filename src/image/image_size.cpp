#include "medvqa/image/image_size.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "src/image/decoders.h"

namespace medvqa {
namespace {

// Big-endian numbers and runs of bytes; every method is empty or false at the end of the file.
class HeaderReader {
 public:
  explicit HeaderReader(const std::filesystem::path& path) : file_(path, std::ios::binary) {}

  std::optional<std::uint32_t> number(int bytes) {
    std::uint32_t value = 0;
    for (int i = 0; i < bytes; ++i) {
      const int byte = file_.get();
      if (byte == std::ifstream::traits_type::eof()) return std::nullopt;
      value = value << 8 | static_cast<std::uint32_t>(byte);
    }
    return value;
  }
  bool text(std::size_t bytes, std::string& out) {
    out.resize(bytes);
    file_.read(out.data(), static_cast<std::streamsize>(bytes));
    return static_cast<bool>(file_);
  }
  bool skip(std::int64_t bytes) {
    file_.seekg(bytes, std::ios::cur);
    return static_cast<bool>(file_);
  }

 private:
  std::ifstream file_;
};

struct Header {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  image_detail::OrientationSources sources;
};

constexpr std::uint32_t kApp1 = 0xe1;
constexpr std::uint32_t kStartOfScan = 0xda;

// The frames libjpeg decodes: baseline, extended, progressive, and the last two arithmetic.
bool is_frame(std::uint32_t marker) {
  return marker == 0xc0 || marker == 0xc1 || marker == 0xc2 || marker == 0xc9 || marker == 0xca;
}

bool is_other_frame(std::uint32_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && !is_frame(marker) && marker != 0xc4 && marker != 0xcc;
}

bool read_frame(HeaderReader& reader, std::int64_t bytes, Header& header) {
  const auto precision = reader.number(1);
  const auto height = reader.number(2);
  const auto width = reader.number(2);
  const auto components = reader.number(1);
  if (!precision || !height || !width || !components || bytes < 6) return false;
  const bool is_known = *components == 1 || *components == 3 || *components == 4;
  // A second frame, or a height that only follows after the pixels, is the decoder's business.
  if (*precision != 8 || !is_known || header.width != 0 || *width == 0 || *height == 0)
    return false;
  header.width = *width;
  header.height = *height;
  return reader.skip(bytes - 6);
}

void add_exif(std::string_view data, image_detail::OrientationSources& sources) {
  constexpr std::string_view exif("Exif\0\0", 6);
  constexpr std::string_view xmp("http://ns.adobe.com/xap/1.0/\0", 29);
  if (data.substr(0, exif.size()) == exif) sources.exif += data.substr(exif.size());
  if (data.substr(0, xmp.size()) == xmp) sources.xmp = data.substr(xmp.size());
}

// Everything up to the first scan, where libjpeg's header ends too.
std::optional<Header> read_jpeg(HeaderReader& reader) {
  Header header;
  std::string text;
  for (;;) {
    if (reader.number(1) != 0xffu) return std::nullopt;
    auto marker = reader.number(1);
    while (marker == 0xffu) marker = reader.number(1);
    // What lies below has no length and does not belong into a header.
    if (!marker || *marker < 0xc0 || (*marker >= 0xd0 && *marker <= 0xd9)) return std::nullopt;
    if (*marker == kStartOfScan) break;
    const auto length = reader.number(2);
    if (!length || *length < 2 || is_other_frame(*marker)) return std::nullopt;
    const std::int64_t bytes = *length - 2;
    if (is_frame(*marker)) {
      if (!read_frame(reader, bytes, header)) return std::nullopt;
    } else if (*marker == kApp1) {
      if (!reader.text(static_cast<std::size_t>(bytes), text)) return std::nullopt;
      add_exif(text, header.sources);
    } else if (!reader.skip(bytes)) {
      return std::nullopt;
    }
  }
  if (header.width == 0) return std::nullopt;
  return header;
}

// Orientation in a PNG is rare and can be compressed: such a file is decoded.
bool may_turn(const std::string& type, const std::string& start) {
  using namespace std::string_view_literals;
  if (type == "eXIf") return true;
  if (type != "tEXt" && type != "zTXt" && type != "iTXt") return false;
  return start.starts_with("Raw profile type exif\0"sv) ||
         start.starts_with("XML:com.adobe.xmp\0"sv);
}

// All chunks, for those that matter may follow the pixels.
std::optional<Header> read_png(HeaderReader& reader) {
  constexpr std::uint32_t kLongest = 0x7fffffff;
  constexpr std::uint32_t kKeyBytes = 80;
  Header header;
  std::string type;
  std::string start;
  for (;;) {
    const auto length = reader.number(4);
    if (!length || *length > kLongest || !reader.text(4, type)) return std::nullopt;
    if (type == "IEND") break;
    std::uint32_t read = 0;
    if (type == "IHDR") {
      const auto width = reader.number(4);
      const auto height = reader.number(4);
      if (!width || !height || *length < 8 || header.width != 0) return std::nullopt;
      header.width = *width;
      header.height = *height;
      read = 8;
    } else {
      read = std::min(*length, kKeyBytes);
      if (!reader.text(read, start) || may_turn(type, start)) return std::nullopt;
    }
    if (!reader.skip(std::int64_t{*length} - read + 4)) return std::nullopt;
  }
  if (header.width == 0 || header.height == 0) return std::nullopt;
  if (header.width > kLongest || header.height > kLongest) return std::nullopt;
  return header;
}

std::optional<Header> read_header(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return std::nullopt;
  HeaderReader reader(path);
  const auto magic = reader.number(2);
  if (magic == 0xffd8u) return read_jpeg(reader);
  if (magic == 0x8950u && reader.number(4) == 0x4e470d0au && reader.number(2) == 0x1a0au) {
    return read_png(reader);
  }
  return std::nullopt;
}

}  // namespace

ImageSize image_size(const std::filesystem::path& path, const DecodeLimits& limits) {
  const std::optional<Header> header = read_header(path);
  if (!header) {
    const Image image = load_image(path, limits);
    return {image.height, image.width};
  }
  image_detail::checked_rgb_size(path.string(), header->width, header->height, limits);
  ImageSize size{static_cast<int>(header->height), static_cast<int>(header->width)};
  if (image_detail::orientation_of(header->sources) >= 5) std::swap(size.height, size.width);
  return size;
}

}  // namespace medvqa
