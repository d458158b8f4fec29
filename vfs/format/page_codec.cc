#include "vfs/format/page_codec.h"

#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_c_useRowMatchFinder
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>

#include "vfs/base/bytes.h"

namespace guildlite {
namespace {

constexpr int kWindowLogMax = 25;
constexpr int kTableLogMax = 22;  // two tables of 2^22 entries: 32 MiB

// Above this, the match tables zstd picks for the level are too small to still hold the beginning
// of the prefix when the content comes, and nearly all of the gain is lost.
constexpr size_t kDefaultTablesMax = 1 << 20;

// Below this a meta is all hashes and headers; trying costs more than the few bytes it may save.
constexpr size_t kMetaTryMin = 256;

// Prefix and images of up to 16 pages of 4096 bytes. A busy writer's blocks are larger.
constexpr size_t kSmallMax = 128 << 10;

// What a frame without content size, checksum and dictionary id begins with: magic, descriptor 0,
// and a window of 2^25, whatever the encoder's was. Always the same, hence never stored.
constexpr std::string_view kFrameHeader("\x28\xb5\x2f\xfd\x00\x78", 6);

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
  Set(context_.get(), ZSTD_c_contentSizeFlag, 0);
  return context_.get();
}

size_t PageEncoder::Compress(std::span<const std::byte> bytes, std::string* out) {
  const size_t bound = ZSTD_compressBound(bytes.size());
  if (frame_.size() < bound) frame_.resize(bound);
  const size_t size = Must(
      ZSTD_compress2(context_.get(), frame_.data(), frame_.size(), bytes.data(), bytes.size()));
  assert(frame_.starts_with(kFrameHeader.substr(0, 5)));
  out->append(frame_, kFrameHeader.size(), size - kFrameHeader.size());
  return size - kFrameHeader.size();
}

size_t PageEncoder::EncodeImages(std::span<const std::byte> prefix,
                                 std::span<const std::byte> images, std::string* out) {
  assert(prefix.empty() || prefix.data() + prefix.size() != images.data());
  ZSTD_CCtx* const context = Context();
  const size_t total = prefix.size() + images.size();
  if (total > kDefaultTablesMax) {
    const int bits = static_cast<int>(std::bit_width(total));
    Set(context, ZSTD_c_hashLog, std::min(bits - 2, kTableLogMax));
    Set(context, ZSTD_c_chainLog, std::min(bits - 2, kTableLogMax));
    Set(context, ZSTD_c_windowLog, std::min(bits, kWindowLogMax));
  } else if (total <= kSmallMax && !prefix.empty()) {
    // A handful of pages against their bases: a lazy search finds a tenth more than level 3's, and
    // what it costs, 25 us for a one-row transaction, is paid once an object here.
    Set(context, ZSTD_c_strategy, ZSTD_lazy);
    Set(context, ZSTD_c_windowLog, static_cast<int>(std::bit_width(total)));
    Set(context, ZSTD_c_hashLog, 15);
    Set(context, ZSTD_c_chainLog, 15);
    Set(context, ZSTD_c_searchLog, 4);
    Set(context, ZSTD_c_minMatch, 4);
    Set(context, ZSTD_c_targetLength, 32);
    Set(context, ZSTD_c_useRowMatchFinder, ZSTD_ps_disable);  // slower on so little
  }
  if (!prefix.empty()) Must(ZSTD_CCtx_refPrefix(context, prefix.data(), prefix.size()));
  return Compress(images, out);
}

std::optional<std::string> PageEncoder::EncodeMeta(std::string_view meta) {
  if (meta.size() < kMetaTryMin) return std::nullopt;
  Context();
  std::string out;
  if (Compress(AsBytes(meta), &out) >= meta.size()) return std::nullopt;
  return out;
}

bool PageDecoder::DecodeImages(std::span<const std::byte> frame, std::span<const std::byte> prefix,
                               std::span<std::byte> out) {
  frame_.assign(kFrameHeader).append(AsText(frame));
  // zstd would go on to a second frame, or skip one that holds no data: neither is ours.
  if (ZSTD_findFrameCompressedSize(frame_.data(), frame_.size()) != frame_.size()) return false;
  if (context_ == nullptr) {
    context_.reset(ZSTD_createDCtx());
    if (context_ == nullptr) std::abort();
    Must(ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kWindowLogMax));
  }
  Must(ZSTD_DCtx_reset(context_.get(), ZSTD_reset_session_only));
  Must(ZSTD_DCtx_refPrefix(context_.get(), prefix.data(), prefix.size()));
  const size_t size =
      ZSTD_decompressDCtx(context_.get(), out.data(), out.size(), frame_.data(), frame_.size());
  return !ZSTD_isError(size) && size == out.size();
}

bool PageDecoder::DecodeMeta(std::span<const std::byte> frame, std::span<std::byte> out) {
  return DecodeImages(frame, {}, out);
}

size_t PageDecoder::FrameSizeMax(size_t bytes) { return ZSTD_compressBound(bytes); }

}  // namespace guildlite
