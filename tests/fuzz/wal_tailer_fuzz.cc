// libFuzzer: WalTailer on WAL files nobody vouches for.
//
// The input is a program: it lays frames with a right chain, damages some, leaves some unsealed,
// and calls the tailer meanwhile with bounds that may be false. Claims:
//   1. No input makes it crash, loop or report anything but LOCAL_IO.
//   2. What it delivers keeps the invariants of WalTransaction, and its marks move forward.
//   3. Without a bound it delivers what a second, plain reading of the same bytes finds.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"
#include "vfs/capture/wal_tailer.h"

namespace guildlite {
namespace {

constexpr uint32_t kPageSize = 512;
constexpr size_t kFrameSize = 24 + kPageSize;

void Require(bool condition) {
  if (!condition) std::abort();
}

File MakeFile() {
  const int fd = ::memfd_create("wal", MFD_CLOEXEC);
  auto file = File::Open("/proc/self/fd/" + std::to_string(fd), O_RDWR);
  ::close(fd);
  Require(file.ok());
  return *std::move(file);
}

// The commit frames a recovery finds in `bytes`, padding repeats joined; in plain steps.
std::vector<uint32_t> PlainReading(const std::string& bytes) {
  std::vector<uint32_t> ends;
  if (bytes.size() < 32) return ends;
  const bool big_endian = (LoadBig32(bytes.data()) & 1) != 0;
  WalChecksum chain;
  chain.Update(AsBytes(bytes).first(24), big_endian);
  std::string_view last_commit;
  bool open = false;
  for (uint32_t frame = 1; 32 + frame * kFrameSize <= bytes.size(); ++frame) {
    const auto f = std::string_view(bytes).substr(32 + (frame - 1) * kFrameSize, kFrameSize);
    chain.Update(AsBytes(f.substr(0, 8)), big_endian);
    chain.Update(AsBytes(f.substr(24)), big_endian);
    if (f.substr(8, 8) != std::string_view(bytes).substr(16, 8) || LoadBig32(f.data()) == 0 ||
        LoadBig32(f.data() + 16) != chain.s0 || LoadBig32(f.data() + 20) != chain.s1) {
      break;
    }
    if (LoadBig32(f.data() + 4) == 0) {
      open = true;
      continue;
    }
    const bool repeat = !open && !last_commit.empty() &&
                        f.substr(0, 8) == last_commit.substr(0, 8) &&
                        f.substr(24) == last_commit.substr(24);
    if (repeat) {
      ends.back() = frame;
    } else {
      ends.push_back(frame);
    }
    open = false;
    last_commit = f;
  }
  return ends;
}

class Machine {
 public:
  Machine() : file_(MakeFile()), tailer_(file_) {}

  void Run(Cursor program) {
    big_endian_ = (program.U8() & 1) != 0;
    Reset();
    Sync();
    mark_ = WalMark{salt1_, salt2_, 0, chain_.s0, chain_.s1};
    for (int steps = 0; program.remaining() > 0 && steps < 200; ++steps) {
      const uint8_t op = program.U8();
      const uint8_t a = program.U8();
      const uint8_t b = program.U8();
      switch (op % 8) {
        case 0:
        case 1:
          Append(a % 16, op & 0x80 ? b % 16 : 0, b, /*sealed=*/true);
          break;
        case 2:
          Append(a % 16, op & 0x80 ? b % 16 : 0, b, /*sealed=*/false);
          break;
        case 3:
          Repeat();
          break;
        case 4:  // damage
          if (!bytes_.empty())
            bytes_[(size_t{a} << 8 | b) % bytes_.size()] ^= static_cast<char>(op);
          break;
        case 5:
          if (a < 16) {
            bytes_.resize(std::min(bytes_.size(), size_t{b} * 64));
          } else if (a < 64) {
            Reset();
          } else {
            frame_ = b % (frame_ + 1);  // a rollback; the chain goes on from what is stored
            const size_t at = frame_ == 0 ? 24 : 32 + (frame_ - 1) * kFrameSize + 16;
            if (bytes_.size() >= at + 8) {
              chain_ = {LoadBig32(&bytes_[at]), LoadBig32(&bytes_[at + 4])};
            }
          }
          break;
        case 6:
          Read(Published{salt1_, salt2_, frame_ + (b & 1), a, chain_.s0, chain_.s1}, b);
          break;
        default:
          Read(std::nullopt, b);
          break;
      }
    }
    CompareWithPlainReading();
  }

 private:
  void Reset() {
    ++salt1_;
    salt2_ = salt2_ * 1664525 + 1013904223;
    std::string header;
    for (const uint32_t v :
         {kWalMagic | (big_endian_ ? 1 : 0), kWalVersion, kPageSize, uint32_t{0}, salt1_, salt2_}) {
      PutBig32(&header, v);
    }
    chain_ = {};
    chain_.Update(AsBytes(header), big_endian_);
    PutBig32(&header, chain_.s0);
    PutBig32(&header, chain_.s1);
    if (bytes_.size() < header.size()) bytes_.resize(header.size());
    bytes_.replace(0, header.size(), header);
    frame_ = 0;
  }

  void Append(uint32_t pgno, uint32_t commit_pages, uint8_t fill, bool sealed) {
    std::string frame;
    PutBig32(&frame, pgno);
    PutBig32(&frame, commit_pages);
    std::string page(kPageSize, static_cast<char>(fill & 3));
    if (sealed) {
      chain_.Update(AsBytes(frame), big_endian_);
      chain_.Update(AsBytes(page), big_endian_);
      for (const uint32_t v : {salt1_, salt2_, chain_.s0, chain_.s1}) PutBig32(&frame, v);
    } else {
      frame.append(16, '\0');
    }
    frame += page;
    const size_t at = 32 + frame_ * kFrameSize;
    if (bytes_.size() < at + kFrameSize) bytes_.resize(at + kFrameSize);
    bytes_.replace(at, kFrameSize, frame);
    ++frame_;
  }

  void Repeat() {
    const size_t at = 32 + (frame_ - size_t{1}) * kFrameSize;
    if (frame_ == 0 || bytes_.size() < at + kFrameSize) return;
    Append(LoadBig32(&bytes_[at]), LoadBig32(&bytes_[at + 4]),
           static_cast<uint8_t>(bytes_[at + 24]), true);
  }

  void Sync() {
    Require(file_.Truncate(0).ok());
    Require(file_.WriteAt(0, AsBytes(bytes_)).ok());
  }

  // Returns whether a transaction came.
  bool ReadOne(WalTailer* tailer, WalMark* mark, const std::optional<Published>& bound) {
    auto outcome = tailer->Next(*mark, bound);
    if (!outcome.ok()) {
      Require(outcome.status().tag() == Tag::kLocalIo);
      return false;
    }
    const WalTransaction& t = outcome->transaction;
    Require(outcome->mark.frame >= mark->frame);
    Require(!bound || outcome->mark.frame <= std::max(mark->frame, bound->max_frame));
    if (outcome->end == WalTailer::End::kOtherGeneration) return false;
    Require(bound ? outcome->end != WalTailer::End::kChainEnd
                  : outcome->end != WalTailer::End::kBound);
    const WalMark before = std::exchange(*mark, outcome->mark);
    if (outcome->end != WalTailer::End::kTransaction) return false;
    Require(t.end == outcome->mark && t.end.frame > before.frame && t.database_pages > 0);
    Require(t.images.size() == t.pages.size() * kPageSize);
    std::set<Pgno> seen;
    uint32_t previous = before.frame;
    for (size_t i = 0; i < t.pages.size(); ++i) {
      const FrameRef& p = t.pages[i];
      Require(seen.insert(p.pgno).second && p.pgno.value <= t.database_pages && p.pgno.value > 0);
      Require(p.frame > std::exchange(previous, p.frame) && p.frame <= t.end.frame);
      const auto image = std::span(t.images).subspan(i * kPageSize, kPageSize);
      Require(PageHash(p.pgno, image) == p.hash);
    }
    return true;
  }

  void Read(const std::optional<Published>& bound, uint8_t how) {
    Sync();
    if (how & 2) {
      if (auto header = tailer_.ReadHeader(); header.ok()) mark_ = WalTailer::Start(*header);
    }
    for (int n = 0; n < 1 + (how >> 2 & 7) && ReadOne(&tailer_, &mark_, bound); ++n) {
    }
    Require(tailer_.Contains(mark_).ok());
  }

  void CompareWithPlainReading() {
    Sync();
    auto header = tailer_.ReadHeader();
    if (!header.ok() || header->page_size != kPageSize) return;
    const auto expected = PlainReading(bytes_);
    WalMark mark = WalTailer::Start(*header);
    std::vector<uint32_t> ends;
    while (ReadOne(&tailer_, &mark, std::nullopt)) ends.push_back(mark.frame);
    Require(ends == expected);
  }

  File file_;
  WalTailer tailer_;
  bool big_endian_ = false;
  std::string bytes_;
  uint32_t salt1_ = 0, salt2_ = 0, frame_ = 0;
  WalChecksum chain_;
  WalMark mark_;
};

}  // namespace
}  // namespace guildlite

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  guildlite::Machine().Run(guildlite::Cursor(std::as_bytes(std::span(data, size))));
  return 0;
}
