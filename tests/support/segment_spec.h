// Segments described by value: what is in a body, an encoder of it, and a replica that decodes it.
//
// Images are made from a seed so that neighbouring versions of a page differ in a few bytes, as
// real ones do; every byte is a function of the seed on every machine.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "vfs/format/segment_reader.h"
#include "vfs/format/segment_writer.h"

namespace guildlite::testing {

struct PageSpec {
  uint32_t pgno = 0;
  std::string image;
  bool operator==(const PageSpec&) const = default;
};

struct TransactionSpec {
  Transaction header;
  std::vector<PageSpec> pages;
  bool operator==(const TransactionSpec&) const = default;
};

// Page images by number: the state of a database.
using Images = std::map<uint32_t, std::string>;

void Apply(const TransactionSpec& transaction, Images* images);

// A text-like page, and a next version of it with a few changed bytes.
std::string MakePage(uint32_t page_size, uint64_t seed);
std::string EditPage(std::string image, uint64_t seed);

// Fills txid, history hash (after `history_before`) and, where known, a rolling checksum.
void Chain(std::vector<TransactionSpec>* transactions, Txid first, uint64_t history_before);

struct RandomSettings {
  uint32_t page_size = 512;
  size_t transactions = 10;
  uint32_t pages_max = 8;  // a transaction's
  uint32_t database_pages = 40;
};
// A random history on top of `before`: updates, growth and shrinking, heals, unknown checksums.
std::vector<TransactionSpec> RandomHistory(std::mt19937_64& random, const RandomSettings& settings,
                                           const Images& before, Txid first,
                                           uint64_t history_before);

// Encodes them as one batch, every page against the version before where there is one.
std::string EncodeBatch(const std::vector<TransactionSpec>& transactions, const Images& before,
                        const BatchWriter::Settings& settings,
                        std::vector<IndexEntry>* index = nullptr);
void AddTo(BatchWriter* writer, const TransactionSpec& transaction, Images* state);

// Decodes into memory and remembers what it saw.
class Replica final : public BatchVisitor {
 public:
  explicit Replica(Images before = {}) : images(std::move(before)) {}

  Status ReadBase(Pgno pgno, std::span<std::byte> out) override;
  Status OnTransaction(const Transaction& transaction) override;
  Status OnPage(Pgno pgno, uint64_t hash, std::span<const std::byte> image) override;
  Status OnTransactionEnd(const Transaction& transaction) override;
  bool Done() override { return seen.size() >= stop_after && !open; }

  Images images;
  std::vector<TransactionSpec> seen;  // images empty when decoded without
  std::vector<uint32_t> bases_read;
  size_t stop_after = SIZE_MAX;
  bool open = false;
};

// A source that hands out `bytes` in pieces of at most `piece` bytes.
class PiecewiseSource final : public BodySource {
 public:
  PiecewiseSource(std::span<const std::byte> bytes, size_t piece) : bytes_(bytes), piece_(piece) {}
  Result<std::span<const std::byte>> Next() override;

 private:
  std::span<const std::byte> bytes_;
  size_t piece_;
  std::string held_;  // the last piece; the one before is gone, as the contract allows
};

Status Decode(std::string_view body, const DecodeSettings& settings, BatchVisitor& visitor);

}  // namespace guildlite::testing
