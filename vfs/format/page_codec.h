// The two zstd frames of a block: its images, against a prefix of older versions, and its meta.
//
//   1. The prefix of an images frame is raw bytes (ZSTD_CCtx_refPrefix): no dictionary id, no
//      entropy tables. Decoding with other bytes than it was encoded with fails or gives other
//      images: the caller knows the hash of each. Content size and checksum are left out, as the
//      meta and its hashes say more, and so is the frame header, which then is always the same.
//   2. A frame depends on level, prefix and content alone, not on what the context coded before.
//      Small ones with a prefix are searched harder, whatever the level.
//   3. prefix + content <= 2 * kBlockBytesLimit, so every match is inside a window of 2^25.
//
// A context is made at first use and kept: 0.5 to 10 MB for the encoder, 0.2 MB for the decoder.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace guildlite {

class PageEncoder {
 public:
  explicit PageEncoder(int level) : level_(level) {}

  // Appends the frame to `out` and returns its size. REQUIRES: `prefix` does not end where `images`
  // begins (zstd would take them for one buffer and find other matches, against invariant 2).
  size_t EncodeImages(std::span<const std::byte> prefix, std::span<const std::byte> images,
                      std::string* out);
  // The compressed meta, or nothing where that is not smaller.
  std::optional<std::string> EncodeMeta(std::string_view meta);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  ZSTD_CCtx_s* Context();
  size_t Compress(std::span<const std::byte> bytes, std::string* out);

  int level_;
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
  std::string frame_;  // as zstd makes it
};

class PageDecoder {
 public:
  // Fills `out` exactly from exactly one frame. False: damaged, or another prefix; but neither is
  // always found.
  bool DecodeImages(std::span<const std::byte> frame, std::span<const std::byte> prefix,
                    std::span<std::byte> out);
  bool DecodeMeta(std::span<const std::byte> frame, std::span<std::byte> out);

  // The most that `bytes` of images can take when stored.
  static size_t FrameSizeMax(size_t bytes);

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
  std::string frame_;  // as zstd wants it
};

}  // namespace guildlite
