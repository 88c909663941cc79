// JPEG through libjpeg-turbo with its defaults (accurate integer DCT, smooth chroma upsampling),
// which are Pillow's too. libjpeg reports errors by longjmp, so the calls that may fail are kept
// in methods without objects to destroy, and everything they need lives in the reader.
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs size_t and FILE from the headers above.
#include <fmt/format.h>
#include <jerror.h>
#include <jpeglib.h>

#include <memory>

#include "src/image/decoders.h"

namespace medvqa::image_detail {
namespace {

constexpr int kExifMarker = JPEG_APP0 + 1;
constexpr unsigned kLongestMarker = 0xffff;

// Warnings that say nothing about missing or broken picture data.
bool is_harmless(int message) {
  return message == JWRN_EXTRANEOUS_DATA || message == JWRN_JFIF_MAJOR ||
         message == JWRN_ADOBE_XFORM || message == JWRN_TOO_MUCH_DATA;
}

class JpegReader {
 public:
  JpegReader(Bytes bytes, int max_scans) : max_scans_(max_scans) {
    info_.err = jpeg_std_error(&errors_);
    info_.client_data = this;
    errors_.error_exit = on_error;
    errors_.emit_message = on_message;
    errors_.output_message = [](j_common_ptr) {};
    data_ = reinterpret_cast<const unsigned char*>(bytes.data());
    size_ = bytes.size();
  }
  ~JpegReader() { jpeg_destroy_decompress(&info_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // Each returns false on an error, and `reason` then says which.
  bool read_header();
  bool start();
  bool read_row(unsigned char* row);
  bool has_warning() const { return warned_; }
  const char* reason() const { return reason_; }

  const jpeg_decompress_struct& info() const { return info_; }
  OrientationSources orientation_sources() const;

 private:
  static JpegReader& self(j_common_ptr info) {
    return *static_cast<JpegReader*>(info->client_data);
  }
  [[noreturn]] static void on_error(j_common_ptr info) {
    info->err->format_message(info, self(info).reason_);
    std::longjmp(self(info).jump_, 1);
  }
  static void on_message(j_common_ptr info, int level) {
    if (level >= 0 || is_harmless(info->err->msg_code) || self(info).warned_) return;
    info->err->format_message(info, self(info).reason_);
    self(info).warned_ = true;
  }
  static void on_progress(j_common_ptr info) {
    JpegReader& reader = self(info);
    if (reader.info_.input_scan_number <= reader.max_scans_) return;
    std::snprintf(reader.reason_, sizeof reader.reason_, "more than %d scans", reader.max_scans_);
    std::longjmp(reader.jump_, 1);
  }

  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf jump_{};
  const unsigned char* data_ = nullptr;
  std::size_t size_ = 0;
  int max_scans_ = 0;
  bool warned_ = false;
  char reason_[JMSG_LENGTH_MAX] = {};
};

bool JpegReader::read_header() {
  if (setjmp(jump_) != 0) return false;
  jpeg_create_decompress(&info_);
  progress_.progress_monitor = on_progress;
  info_.progress = &progress_;
  jpeg_mem_src(&info_, data_, static_cast<unsigned long>(size_));
  jpeg_save_markers(&info_, kExifMarker, kLongestMarker);
  jpeg_read_header(&info_, TRUE);
  return true;
}

bool JpegReader::start() {
  if (setjmp(jump_) != 0) return false;
  jpeg_start_decompress(&info_);
  return true;
}

bool JpegReader::read_row(unsigned char* row) {
  if (setjmp(jump_) != 0) return false;
  JSAMPROW rows[1] = {row};
  jpeg_read_scanlines(&info_, rows, 1);
  return true;
}

OrientationSources JpegReader::orientation_sources() const {
  constexpr std::string_view exif("Exif\0\0", 6);
  constexpr std::string_view xmp("http://ns.adobe.com/xap/1.0/\0", 29);
  OrientationSources sources;
  for (jpeg_saved_marker_ptr marker = info_.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker != kExifMarker) continue;
    if (data.substr(0, exif.size()) == exif) sources.exif += data.substr(exif.size());
    if (data.substr(0, xmp.size()) == xmp) sources.xmp = data.substr(xmp.size());
  }
  return sources;
}

// a * b / 255, rounded, as Pillow computes it.
int multiply_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// Pillow takes every four-component JPEG for an inverted one, as Adobe writes them.
void row_to_rgb(const unsigned char* row, int components, int width, std::uint8_t* rgb) {
  for (int x = 0; x < width; ++x, row += components, rgb += 3) {
    for (int c = 0; c < 3; ++c) {
      if (components == 1) {
        rgb[c] = row[0];
      } else {
        const int white = row[3];
        rgb[c] = static_cast<std::uint8_t>(white - multiply_255(255 - row[c], white));
      }
    }
  }
}

}  // namespace

Image decode_jpeg(Bytes bytes, std::string_view name, const DecodeLimits& limits) {
  constexpr std::string_view format = "JPEG";
  const auto reader = std::make_unique<JpegReader>(bytes, limits.max_scans);
  if (!reader->read_header()) fail_damaged(name, format, reader->reason());
  const auto& info = reader->info();
  Image image;
  image.width = static_cast<int>(info.image_width);
  image.height = static_cast<int>(info.image_height);
  const std::size_t bytes_needed = checked_rgb_size(name, image.width, image.height, limits);
  if (info.num_components != 1 && info.num_components != 3 && info.num_components != 4) {
    fail_image(name, fmt::format("a JPEG of {} components", info.num_components),
               "grey, colour or CMYK", "convert it to PNG");
  }
  if (!reader->start()) fail_damaged(name, format, reader->reason());
  image.rgb.resize(bytes_needed);
  const auto row_bytes = static_cast<std::size_t>(image.width) * 3;
  const int components = info.output_components;
  std::vector<unsigned char> row(static_cast<std::size_t>(image.width * components));
  while (info.output_scanline < info.output_height) {
    std::uint8_t* rgb = image.rgb.data() + info.output_scanline * row_bytes;
    if (!reader->read_row(components == 3 ? rgb : row.data())) {
      fail_damaged(name, format, reader->reason());
    }
    if (components != 3) row_to_rgb(row.data(), components, image.width, rgb);
  }
  if (reader->has_warning()) fail_damaged(name, format, reader->reason());
  return upright(std::move(image), orientation_of(reader->orientation_sources()));
}

}  // namespace medvqa::image_detail
