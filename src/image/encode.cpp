// As in png.cpp and jpeg.cpp, calls that may longjmp are kept in methods without objects to
// destroy.
#include "medvqa/image/encode.h"

#include <cstdio>
// jpeglib.h needs the types of cstdio.
#include <jpeglib.h>
#include <png.h>

#include <csetjmp>
#include <cstdlib>
#include <new>

#include "medvqa/core/error.h"

namespace medvqa {
namespace {

// The rows of a picture as both libraries take them: one byte a pixel where it is grey, else three.
class Rows {
 public:
  explicit Rows(const Image& image) : width_(image.width), height_(image.height) {
    const auto pixels = static_cast<std::size_t>(width_) * static_cast<std::size_t>(height_);
    MEDVQA_CHECK(width_ > 0 && height_ > 0 && image.rgb.size() == pixels * 3,
                 "a picture to encode has width x height x 3 bytes");
    for (std::size_t i = 0; i < pixels && is_grey_; ++i) {
      is_grey_ =
          image.rgb[i * 3] == image.rgb[i * 3 + 1] && image.rgb[i * 3] == image.rgb[i * 3 + 2];
    }
    bytes_ = image.rgb;
    if (!is_grey_) return;
    for (std::size_t i = 0; i < pixels; ++i) bytes_[i] = image.rgb[i * 3];
    bytes_.resize(pixels);
  }

  unsigned width() const { return static_cast<unsigned>(width_); }
  unsigned height() const { return static_cast<unsigned>(height_); }
  bool is_grey() const { return is_grey_; }
  std::uint8_t* row(unsigned y) {
    return bytes_.data() + std::size_t{y} * width() * (is_grey_ ? 1 : 3);
  }

 private:
  int width_, height_;
  bool is_grey_ = true;
  std::vector<std::uint8_t> bytes_;
};

class PngWriter {
 public:
  PngWriter() {
    png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, this, on_error, on_warning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) throw std::bad_alloc();
  }
  ~PngWriter() { png_destroy_write_struct(&png_, &info_); }
  PngWriter(const PngWriter&) = delete;
  PngWriter& operator=(const PngWriter&) = delete;

  bool write(Rows& rows);
  std::vector<std::byte> take() { return std::move(out_); }

 private:
  [[noreturn]] static void on_error(png_structp png, png_const_charp) {
    std::longjmp(static_cast<PngWriter*>(png_get_error_ptr(png))->jump_, 1);
  }
  static void on_warning(png_structp, png_const_charp) {}
  // An exception must not cross the C library.
  static void on_write(png_structp png, png_bytep data, std::size_t count) {
    auto& out = static_cast<PngWriter*>(png_get_io_ptr(png))->out_;
    bool has_room = true;
    try {
      const auto* bytes = reinterpret_cast<const std::byte*>(data);
      out.insert(out.end(), bytes, bytes + count);
    } catch (const std::bad_alloc&) {
      has_room = false;
    }
    if (!has_room) png_error(png, "no memory");
  }

  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  std::jmp_buf jump_{};
  std::vector<std::byte> out_;
};

bool PngWriter::write(Rows& rows) {
  if (setjmp(jump_) != 0) return false;
  png_set_write_fn(png_, this, on_write, nullptr);
  png_set_compression_level(png_, 6);
  png_set_IHDR(png_, info_, rows.width(), rows.height(), 8,
               rows.is_grey() ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_write_info(png_, info_);
  for (unsigned y = 0; y < rows.height(); ++y) png_write_row(png_, rows.row(y));
  png_write_end(png_, info_);
  return true;
}

class JpegWriter {
 public:
  JpegWriter() {
    jpeg_.err = jpeg_std_error(&errors_);
    errors_.error_exit = on_error;
    jpeg_.client_data = this;
  }
  ~JpegWriter() {
    jpeg_destroy_compress(&jpeg_);
    std::free(bytes_);  // NOLINT(cppcoreguidelines-no-malloc): the library's own
  }
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;

  bool write(Rows& rows, int quality);
  std::vector<std::byte> bytes() const {
    const auto* begin = reinterpret_cast<const std::byte*>(bytes_);
    return {begin, begin + size_};
  }

 private:
  [[noreturn]] static void on_error(j_common_ptr jpeg) {
    std::longjmp(static_cast<JpegWriter*>(jpeg->client_data)->jump_, 1);
  }

  jpeg_compress_struct jpeg_{};
  jpeg_error_mgr errors_{};
  std::jmp_buf jump_{};
  unsigned char* bytes_ = nullptr;
  unsigned long size_ = 0;
};

bool JpegWriter::write(Rows& rows, int quality) {
  if (setjmp(jump_) != 0) return false;
  jpeg_create_compress(&jpeg_);
  jpeg_mem_dest(&jpeg_, &bytes_, &size_);
  jpeg_.image_width = rows.width();
  jpeg_.image_height = rows.height();
  jpeg_.input_components = rows.is_grey() ? 1 : 3;
  jpeg_.in_color_space = rows.is_grey() ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&jpeg_);
  jpeg_set_quality(&jpeg_, quality, TRUE);
  jpeg_.dct_method = JDCT_ISLOW;
  for (int c = 0; c < jpeg_.num_components; ++c) {
    jpeg_.comp_info[c].h_samp_factor = 1;
    jpeg_.comp_info[c].v_samp_factor = 1;
  }
  jpeg_start_compress(&jpeg_, TRUE);
  for (unsigned y = 0; y < rows.height(); ++y) {
    JSAMPROW row = rows.row(y);
    jpeg_write_scanlines(&jpeg_, &row, 1);
  }
  jpeg_finish_compress(&jpeg_);
  return true;
}

}  // namespace

std::vector<std::byte> encode_png(const Image& image) {
  Rows rows(image);
  PngWriter writer;
  MEDVQA_CHECK(writer.write(rows), "libpng could not encode a picture");
  return writer.take();
}

std::vector<std::byte> encode_jpeg(const Image& image, int quality) {
  Rows rows(image);
  JpegWriter writer;
  MEDVQA_CHECK(writer.write(rows, quality), "libjpeg could not encode a picture");
  return writer.bytes();
}

std::vector<std::byte> encode_image(const Image& image, ImageFormat format) {
  return format == ImageFormat::png ? encode_png(image) : encode_jpeg(image);
}

}  // namespace medvqa
