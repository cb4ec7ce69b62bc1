#include "server/convert/image_decode.h"

#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"

// jpeglib.h needs cstdio and must follow png.h.
#include <jerror.h>
#include <jpeglib.h>

namespace qk {
namespace {

// Limits the work for a progressive file, which may have thousands of scans of
// one bit each.
constexpr int kMaxJpegScans = 100;
constexpr png_alloc_size_t kMaxPngChunkBytes = png_alloc_size_t{8} << 20;

absl::Status CheckSize(int64_t width, int64_t height) {
  if (width < 1 || height < 1 || width > kMaxImageSide ||
      height > kMaxImageSide || width * height > kMaxImagePixels) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", width, " x ", height, " pixels, limit ",
                     kMaxImagePixels, " and sides of ", kMaxImageSide));
  }
  return absl::OkStatus();
}

// The libraries report errors by longjmp. Objects that must survive it are
// members here, not locals of the function that is left.
struct PngReader {
  absl::string_view left;
  png_structp png = nullptr;
  png_infop info = nullptr;
  Pixels pixels;
  std::vector<png_bytep> rows;
  absl::Status status;

  ~PngReader() { png_destroy_read_struct(&png, &info, nullptr); }
};

void ReadPngBytes(png_structp png, png_bytep out, size_t size) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (size > reader->left.size()) png_error(png, "truncated");
  std::memcpy(out, reader->left.data(), size);
  reader->left.remove_prefix(size);
}

void IgnorePngWarning(png_structp, png_const_charp) {}

absl::Status CheckPng(const PngReader& r) {
  const absl::Status size = CheckSize(png_get_image_width(r.png, r.info),
                                      png_get_image_height(r.png, r.info));
  if (!size.ok()) return size;
  const int type = png_get_color_type(r.png, r.info);
  if (png_get_bit_depth(r.png, r.info) == 16 &&
      (type & PNG_COLOR_MASK_COLOR) == 0) {
    return absl::UnimplementedError("PNG: 16-bit grey is not implemented");
  }
  return absl::OkStatus();
}

// Returns false if the library failed. `status` reports bad sizes.
bool ReadPng(PngReader& r) {
  if (setjmp(png_jmpbuf(r.png))) return false;
  png_set_read_fn(r.png, &r, ReadPngBytes);
  png_set_user_limits(r.png, kMaxImageSide, kMaxImageSide);
  png_set_chunk_malloc_max(r.png, kMaxPngChunkBytes);
  png_read_info(r.png, r.info);
  r.status = CheckPng(r);
  if (!r.status.ok()) return true;
  png_set_expand(r.png);
  png_set_strip_16(r.png);
  png_set_gray_to_rgb(r.png);
  png_set_strip_alpha(r.png);
  png_set_interlace_handling(r.png);
  png_read_update_info(r.png, r.info);
  r.pixels.width = static_cast<int>(png_get_image_width(r.png, r.info));
  r.pixels.height = static_cast<int>(png_get_image_height(r.png, r.info));
  const size_t stride = size_t{3} * r.pixels.width;
  if (png_get_rowbytes(r.png, r.info) != stride) return false;
  r.pixels.rgb.resize(stride * r.pixels.height);
  for (int y = 0; y < r.pixels.height; ++y) {
    r.rows.push_back(r.pixels.rgb.data() + y * stride);
  }
  png_read_image(r.png, r.rows.data());
  png_read_end(r.png, nullptr);
  return true;
}

absl::StatusOr<Pixels> DecodePng(absl::string_view file) {
  PngReader reader;
  reader.left = file;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr,
                                      IgnorePngWarning);
  QK_CHECK(reader.png != nullptr);
  // The library's own handler would print errors.
  png_set_error_fn(
      reader.png, nullptr,
      [](png_structp png, png_const_charp) { png_longjmp(png, 1); },
      IgnorePngWarning);
  reader.info = png_create_info_struct(reader.png);
  QK_CHECK(reader.info != nullptr);
  if (!ReadPng(reader)) {
    return absl::InvalidArgumentError("PNG: the file is damaged or too large");
  }
  if (!reader.status.ok()) return reader.status;
  return std::move(reader.pixels);
}

struct JpegReader {
  jpeg_decompress_struct jpeg = {};
  jpeg_error_mgr errors = {};
  jpeg_progress_mgr progress = {};
  std::jmp_buf jump;
  Pixels pixels;
  absl::Status status;

  ~JpegReader() { jpeg_destroy_decompress(&jpeg); }
};

[[noreturn]] void FailJpeg(j_common_ptr jpeg) {
  std::longjmp(static_cast<JpegReader*>(jpeg->client_data)->jump, 1);
}

// Rejects truncated data. The library only warns about it and invents the
// missing pixels.
void JpegMessage(j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER)) {
    FailJpeg(jpeg);
  }
}

void JpegProgress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number >
      kMaxJpegScans) {
    FailJpeg(jpeg);
  }
}

// Returns false if the library failed. `status` reports bad sizes.
bool ReadJpeg(absl::string_view file, JpegReader& r) {
  jpeg_decompress_struct& jpeg = r.jpeg;
  if (setjmp(r.jump)) return false;
  jpeg_create_decompress(&jpeg);
  jpeg.progress = &r.progress;
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(file.data()),
               file.size());
  jpeg_read_header(&jpeg, TRUE);
  r.status = CheckSize(jpeg.image_width, jpeg.image_height);
  if (!r.status.ok()) return true;
  if (jpeg.jpeg_color_space != JCS_GRAYSCALE &&
      jpeg.jpeg_color_space != JCS_YCbCr && jpeg.jpeg_color_space != JCS_RGB) {
    r.status = absl::UnimplementedError(
        "JPEG: only grey, YCbCr and RGB are implemented");
    return true;
  }
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  r.pixels.width = static_cast<int>(jpeg.output_width);
  r.pixels.height = static_cast<int>(jpeg.output_height);
  const size_t stride = size_t{3} * r.pixels.width;
  r.pixels.rgb.resize(stride * r.pixels.height);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = r.pixels.rgb.data() + jpeg.output_scanline * stride;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

absl::StatusOr<Pixels> DecodeJpeg(absl::string_view file) {
  JpegReader reader;
  reader.jpeg.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = FailJpeg;
  reader.errors.emit_message = JpegMessage;
  reader.jpeg.client_data = &reader;
  reader.progress.progress_monitor = JpegProgress;
  if (!ReadJpeg(file, reader)) {
    return absl::InvalidArgumentError("JPEG: the file is damaged");
  }
  if (!reader.status.ok()) return reader.status;
  return std::move(reader.pixels);
}

}  // namespace

absl::StatusOr<Pixels> DecodeImage(absl::string_view file) {
  if (absl::StartsWith(file, "\x89PNG\r\n\x1a\n")) return DecodePng(file);
  if (absl::StartsWith(file, "\xff\xd8\xff")) return DecodeJpeg(file);
  return absl::InvalidArgumentError("not a PNG or JPEG file");
}

}  // namespace qk
