#include "tests/support/wal_builder.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "vfs/base/bytes.h"

namespace guildlite::testing {

WalBuilder::WalBuilder(uint32_t page_size, bool big_endian, uint32_t salt1, uint32_t salt2)
    : page_size_(page_size), big_endian_(big_endian), salt1_(salt1), salt2_(salt2) {
  WriteHeader();
}

void WalBuilder::WriteHeader() {
  std::string header;
  PutBig32(&header, big_endian_ ? 0x377f0683 : 0x377f0682);
  PutBig32(&header, 3007000);
  PutBig32(&header, page_size_);
  PutBig32(&header, sequence_);
  PutBig32(&header, salt1_);
  PutBig32(&header, salt2_);
  chain_ = {};
  chain_.Update(AsBytes(header), big_endian_);
  PutBig32(&header, chain_.s0);
  PutBig32(&header, chain_.s1);
  if (bytes_.size() < header.size()) bytes_.resize(header.size());
  bytes_.replace(0, header.size(), header);
  frame_ = 0;
}

std::string WalBuilder::Page(uint64_t seed) const {
  std::string page;
  std::mt19937_64 random(seed);
  while (page.size() < page_size_) PutBig64(&page, random());
  return page;
}

void WalBuilder::Append(std::string_view header, std::string_view page) {
  const size_t offset = 32 + size_t{frame_} * (24 + page_size_);
  last_ = std::string(header) + std::string(page);
  if (bytes_.size() < offset + last_.size()) bytes_.resize(offset + last_.size());
  bytes_.replace(offset, last_.size(), last_);
  ++frame_;
  if (const uint32_t commit_pages = LoadBig32(header.data() + 4)) database_pages_ = commit_pages;
}

WalBuilder& WalBuilder::Frame(uint32_t pgno, uint32_t commit_pages, std::string_view page) {
  std::string header;
  PutBig32(&header, pgno);
  PutBig32(&header, commit_pages);
  chain_.Update(AsBytes(header), big_endian_);
  chain_.Update(AsBytes(page), big_endian_);
  PutBig32(&header, salt1_);
  PutBig32(&header, salt2_);
  PutBig32(&header, chain_.s0);
  PutBig32(&header, chain_.s1);
  Append(header, page);
  return *this;
}

WalBuilder& WalBuilder::UnsealedFrame(uint32_t pgno, uint32_t commit_pages, uint64_t seed) {
  std::string header;
  PutBig32(&header, pgno);
  PutBig32(&header, commit_pages);
  header.append(16, '\0');
  Append(header, Page(seed));
  return *this;
}

WalBuilder& WalBuilder::Repeat() {
  const std::string last = last_;
  return Frame(LoadBig32(last.data()), LoadBig32(last.data() + 4),
               std::string_view(last).substr(24));
}

WalBuilder& WalBuilder::Rewind(const WalMark& mark) {
  frame_ = mark.frame;
  chain_ = {mark.cksum1, mark.cksum2};
  return *this;
}

WalBuilder& WalBuilder::Reset(uint32_t salt1, uint32_t salt2) {
  salt1_ = salt1;
  salt2_ = salt2;
  ++sequence_;
  WriteHeader();
  return *this;
}

Published WalBuilder::published() const {
  return {salt1_, salt2_, frame_, database_pages_, chain_.s0, chain_.s1};
}

WalBuilder& WalBuilder::Write() {
  file_.Set(bytes_);
  return *this;
}

MemoryFile::MemoryFile(std::string_view content) {
  const int fd = ::memfd_create("wal", MFD_CLOEXEC);
  auto file = File::Open("/proc/self/fd/" + std::to_string(fd), O_RDWR);
  ::close(fd);
  if (!file.ok()) std::abort();
  file_ = *std::move(file);
  Set(content);
}

void MemoryFile::Set(std::string_view content) {
  if (!file_.Truncate(0).ok() || !file_.WriteAt(0, AsBytes(content)).ok()) std::abort();
}

uint64_t TestSeed() {
  const char* given = std::getenv("GUILDLITE_SEED");
  const uint64_t seed = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("GUILDLITE_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace guildlite::testing
