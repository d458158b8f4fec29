#include "vfs/format/page_codec.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>

namespace guildlite {
namespace {

constexpr int kWindowLogMax = 25;
constexpr int kTableLogMax = 22;  // two tables of 2^22 entries: 32 MiB

// Above this, the match tables zstd picks for the level are too small to still hold the beginning
// of the prefix when the content comes, and nearly all of the gain is lost.
constexpr size_t kDefaultTablesMax = 1 << 20;

// Below this a meta is all hashes and headers; trying costs more than the few bytes it may save.
constexpr size_t kMetaTryMin = 256;

// Out of memory is the one way these calls can fail; it ends the process as it does in operator
// new.
size_t Must(size_t code) {
  if (ZSTD_isError(code)) std::abort();
  return code;
}

void Set(ZSTD_CCtx* context, ZSTD_cParameter parameter, int value) {
  Must(ZSTD_CCtx_setParameter(context, parameter, value));
}

}  // namespace

void PageEncoder::Free::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }
void PageDecoder::Free::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

ZSTD_CCtx_s* PageEncoder::Context() {
  if (context_ == nullptr) {
    context_.reset(ZSTD_createCCtx());
    if (context_ == nullptr) std::abort();
  }
  Must(ZSTD_CCtx_reset(context_.get(), ZSTD_reset_session_and_parameters));
  Set(context_.get(), ZSTD_c_compressionLevel, level_);
  return context_.get();
}

size_t PageEncoder::EncodeImages(std::span<const std::byte> prefix,
                                 std::span<const std::byte> images, std::string* out) {
  assert(prefix.empty() || prefix.data() + prefix.size() != images.data());
  ZSTD_CCtx* const context = Context();
  Set(context, ZSTD_c_checksumFlag, 1);
  const size_t total = prefix.size() + images.size();
  if (total > kDefaultTablesMax) {
    const int bits = static_cast<int>(std::bit_width(total));
    Set(context, ZSTD_c_hashLog, std::min(bits - 2, kTableLogMax));
    Set(context, ZSTD_c_chainLog, std::min(bits - 2, kTableLogMax));
    Set(context, ZSTD_c_windowLog, std::min(bits, kWindowLogMax));
  }
  if (!prefix.empty()) Must(ZSTD_CCtx_refPrefix(context, prefix.data(), prefix.size()));
  const size_t before = out->size();
  out->resize(before + ZSTD_compressBound(images.size()));
  const size_t size = Must(ZSTD_compress2(context, out->data() + before, out->size() - before,
                                          images.data(), images.size()));
  out->resize(before + size);
  return size;
}

std::optional<std::string> PageEncoder::EncodeMeta(std::string_view meta) {
  if (meta.size() < kMetaTryMin) return std::nullopt;
  std::string out(ZSTD_compressBound(meta.size()), '\0');
  out.resize(Must(ZSTD_compress2(Context(), out.data(), out.size(), meta.data(), meta.size())));
  if (out.size() >= meta.size()) return std::nullopt;
  return out;
}

bool PageDecoder::DecodeImages(std::span<const std::byte> frame, std::span<const std::byte> prefix,
                               std::span<std::byte> out) {
  // zstd would go on to a second frame, or skip one that holds no data: neither is ours.
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return false;
  if (context_ == nullptr) {
    context_.reset(ZSTD_createDCtx());
    if (context_ == nullptr) std::abort();
    Must(ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kWindowLogMax));
  }
  Must(ZSTD_DCtx_reset(context_.get(), ZSTD_reset_session_only));
  Must(ZSTD_DCtx_refPrefix(context_.get(), prefix.data(), prefix.size()));
  const size_t size =
      ZSTD_decompressDCtx(context_.get(), out.data(), out.size(), frame.data(), frame.size());
  return !ZSTD_isError(size) && size == out.size();
}

bool PageDecoder::DecodeMeta(std::span<const std::byte> frame, std::span<std::byte> out) {
  return DecodeImages(frame, {}, out);
}

size_t PageDecoder::FrameSizeMax(size_t bytes) { return ZSTD_compressBound(bytes); }

}  // namespace guildlite
