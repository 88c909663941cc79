// PNG through libpng, which only unpacks, undoes the interlacing and drops alpha and low bytes;
// grey levels and palettes are expanded here, the way Pillow does. As in jpeg.cpp, calls that may
// longjmp are kept in methods without objects to destroy.
#include <png.h>

#include <cctype>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <memory>

#include "src/image/decoders.h"

namespace medvqa::image_detail {
namespace {

class PngReader {
 public:
  explicit PngReader(Bytes bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  // Each returns false on an error, and `reason` then says which.
  bool read_header();
  bool read_pixels(png_bytepp rows);
  const char* reason() const { return reason_; }

  std::int64_t width() const { return png_get_image_width(png_, info_); }
  std::int64_t height() const { return png_get_image_height(png_, info_); }
  int bit_depth() const { return bit_depth_; }
  int colour_type() const { return colour_type_; }
  bool is_16_bit_grey() const { return colour_type_ == PNG_COLOR_TYPE_GRAY && bit_depth_ == 16; }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  std::vector<std::uint8_t> palette() const;
  OrientationSources orientation_sources() const;

 private:
  [[noreturn]] static void on_error(png_structp png, png_const_charp message) {
    auto& reader = *static_cast<PngReader*>(png_get_error_ptr(png));
    std::snprintf(reader.reason_, sizeof reader.reason_, "%s", message);
    std::longjmp(reader.jump_, 1);
  }
  static void on_warning(png_structp, png_const_charp) {}
  static void on_read(png_structp png, png_bytep out, std::size_t count) {
    auto& reader = *static_cast<PngReader*>(png_get_io_ptr(png));
    if (reader.bytes_.size() - reader.at_ < count) png_error(png, "the file ends too early");
    std::memcpy(out, reader.bytes_.data() + reader.at_, count);
    reader.at_ += count;
  }

  Bytes bytes_;
  std::size_t at_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf jump_{};
  int bit_depth_ = 0;
  int colour_type_ = 0;
  char reason_[256] = "no memory for the decoder";
};

bool PngReader::read_header() {
  if (png_ == nullptr || info_ == nullptr) return false;
  if (setjmp(jump_) != 0) return false;
  png_set_read_fn(png_, this, on_read);
  // The picture's own limits are checked by the caller, before anything of its size is allocated.
  png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_read_info(png_, info_);
  bit_depth_ = png_get_bit_depth(png_, info_);
  colour_type_ = png_get_color_type(png_, info_);
  if (bit_depth_ < 8) png_set_packing(png_);
  if (bit_depth_ == 16 && colour_type_ != PNG_COLOR_TYPE_GRAY) png_set_strip_16(png_);
  if ((colour_type_ & PNG_COLOR_MASK_ALPHA) != 0) png_set_strip_alpha(png_);
  png_set_interlace_handling(png_);
  return true;
}

bool PngReader::read_pixels(png_bytepp rows) {
  if (setjmp(jump_) != 0) return false;
  png_read_image(png_, rows);
  png_read_end(png_, info_);
  return true;
}

// 256 RGB entries; those the file does not give are black, as in Pillow.
std::vector<std::uint8_t> PngReader::palette() const {
  std::vector<std::uint8_t> table(256 * 3);
  png_colorp entries = nullptr;
  int count = 0;
  if (png_get_PLTE(png_, info_, &entries, &count) == 0) return table;
  for (int i = 0; i < count && i < 256; ++i) {
    std::uint8_t* entry = table.data() + i * 3;
    entry[0] = entries[i].red;
    entry[1] = entries[i].green;
    entry[2] = entries[i].blue;
  }
  return table;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// ImageMagick's way to keep EXIF in a text chunk: "\nexif\n<length>\n" and lines of hex digits.
std::string raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  std::string bytes;
  int high = -1;
  for (const char c : text) {
    const int digit = hex_digit(c);
    if (digit < 0) continue;
    if (high < 0) {
      high = digit;
    } else {
      bytes += static_cast<char>(high * 16 + digit);
      high = -1;
    }
  }
  return bytes;
}

OrientationSources PngReader::orientation_sources() const {
  OrientationSources sources;
  png_bytep exif = nullptr;
  png_uint_32 exif_bytes = 0;
  if (png_get_eXIf_1(png_, info_, &exif_bytes, &exif) != 0 && exif_bytes > 0) {
    sources.exif.assign(reinterpret_cast<const char*>(exif), exif_bytes);
  }
  png_textp texts = nullptr;
  int count = 0;
  png_get_text(png_, info_, &texts, &count);
  for (int i = 0; i < count; ++i) {
    const std::string_view key = texts[i].key;
    const std::string_view text(texts[i].text == nullptr ? "" : texts[i].text);
    if (key == "Raw profile type exif" && exif_bytes == 0) sources.exif = raw_profile(text);
    if (key == "XML:com.adobe.xmp") sources.xmp = text;
  }
  return sources;
}

// One grey or palette sample a byte -> RGB through a table of 256 entries.
void expand(const std::uint8_t* samples, std::size_t count, const std::vector<std::uint8_t>& table,
            std::uint8_t* rgb) {
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(rgb + i * 3, table.data() + samples[i] * std::size_t{3}, 3);
  }
}

std::vector<std::uint8_t> grey_table(int bit_depth) {
  const int step = 255 / ((1 << bit_depth) - 1);
  std::vector<std::uint8_t> table(256 * 3);
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = static_cast<std::uint8_t>(static_cast<int>(i / 3) * step);
  }
  return table;
}

void narrow_grey(const std::uint8_t* samples, std::size_t count, std::uint8_t* rgb) {
  for (std::size_t i = 0; i < count; ++i) {
    const int value = samples[i * 2] * 256 + samples[i * 2 + 1];
    std::memset(rgb + i * 3, (value + 128) / 257, 3);
  }
}

std::size_t samples_per_pixel(const PngReader& reader) {
  if ((reader.colour_type() & PNG_COLOR_MASK_PALETTE) != 0) return 1;
  if ((reader.colour_type() & PNG_COLOR_MASK_COLOR) != 0) return 3;
  return reader.is_16_bit_grey() ? 2 : 1;
}

}  // namespace

Image decode_png(Bytes bytes, std::string_view name, const DecodeLimits& limits) {
  constexpr std::string_view format = "PNG";
  const auto reader = std::make_unique<PngReader>(bytes);
  if (!reader->read_header()) fail_damaged(name, format, reader->reason());
  Image image;
  const std::size_t bytes_needed =
      checked_rgb_size(name, reader->width(), reader->height(), limits);
  image.width = static_cast<int>(reader->width());
  image.height = static_cast<int>(reader->height());
  const auto width = static_cast<std::size_t>(image.width);
  const auto height = static_cast<std::size_t>(image.height);
  const std::size_t stride = width * samples_per_pixel(*reader);
  std::vector<std::uint8_t> pixels(stride * height);
  std::vector<png_bytep> rows(height);
  for (std::size_t y = 0; y < height; ++y) rows[y] = pixels.data() + y * stride;
  if (!reader->read_pixels(rows.data())) fail_damaged(name, format, reader->reason());
  if (samples_per_pixel(*reader) == 3) {
    image.rgb = std::move(pixels);
  } else {
    image.rgb.resize(bytes_needed);
    if (reader->is_16_bit_grey()) {
      narrow_grey(pixels.data(), width * height, image.rgb.data());
    } else {
      const bool has_palette = reader->colour_type() == PNG_COLOR_TYPE_PALETTE;
      const int depth = reader->bit_depth() > 8 ? 8 : reader->bit_depth();
      expand(pixels.data(), width * height, has_palette ? reader->palette() : grey_table(depth),
             image.rgb.data());
    }
  }
  return upright(std::move(image), orientation_of(reader->orientation_sources()));
}

}  // namespace medvqa::image_detail
