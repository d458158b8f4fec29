#include "tests/support/segment_spec.h"

#include <algorithm>
#include <set>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite::testing {

void Apply(const TransactionSpec& transaction, Images* images) {
  for (const PageSpec& page : transaction.pages) (*images)[page.pgno] = page.image;
  images->erase(images->upper_bound(transaction.header.database_pages), images->end());
}

std::string MakePage(uint32_t page_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string image;
  while (image.size() < page_size) {
    // One after the other: what an expression evaluates first differs from machine to machine.
    const uint64_t since = random();
    const uint64_t guild = random() % 50;
    const uint64_t row = random() % 100000;
    image += "row " + std::to_string(row) + " of guild " + std::to_string(guild) +
             ", member since " + std::to_string(since) + ";";
  }
  image.resize(page_size);
  return image;
}

std::string EditPage(std::string image, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 3; ++i) {
    const size_t at = random() % (image.size() - 8);
    for (size_t j = 0; j < 8; ++j) image[at + j] = static_cast<char>(random());
  }
  return image;
}

void Chain(std::vector<TransactionSpec>* transactions, Txid first, uint64_t history_before) {
  uint64_t history = history_before;
  Txid txid = first;
  for (TransactionSpec& t : *transactions) {
    t.header.txid = txid;
    HistoryHash hash(history, txid, t.header.database_pages);
    for (const PageSpec& page : t.pages) {
      hash.Add(Pgno(page.pgno), PageHash(Pgno(page.pgno), AsBytes(page.image)));
    }
    history = t.header.history_hash = hash.Finish();
    if (t.header.rolling_known) t.header.rolling_checksum = history * 3;
    txid = txid.Next();
  }
}

std::vector<TransactionSpec> RandomHistory(std::mt19937_64& random, const RandomSettings& settings,
                                           const Images& before, Txid first,
                                           uint64_t history_before) {
  std::vector<TransactionSpec> transactions;
  Images state = before;
  const uint32_t lock_page = LockPage(settings.page_size).value;
  uint32_t database_pages = settings.database_pages;
  Transaction last{.time_ms = 1'800'000'000'000, .database_pages = database_pages};
  WalMark mark{static_cast<uint32_t>(random()), static_cast<uint32_t>(random()), 0, 0, 0};
  for (size_t i = 0; i < settings.transactions; ++i) {
    TransactionSpec t;
    t.header.time_ms = last.time_ms += static_cast<int64_t>(random() % 2000);
    t.header.time_estimated = random() % 8 == 0;
    t.header.rolling_known = random() % 4 != 0;
    t.header.heal = random() % 10 == 0;
    if (random() % 6 == 0) database_pages += static_cast<uint32_t>(random() % 20);
    if (random() % 12 == 0) {
      database_pages -= std::min(database_pages - 1, static_cast<uint32_t>(random() % 20));
    }
    t.header.database_pages = database_pages;
    t.header.free_pages = static_cast<uint32_t>(random() % (database_pages + 1));
    std::set<uint32_t> chosen;
    const uint64_t wanted = random() % settings.pages_max + 1;
    for (uint64_t n = 0; n < wanted; ++n) {
      const uint32_t pgno = static_cast<uint32_t>(random() % database_pages + 1);
      if (pgno == lock_page || !chosen.insert(pgno).second) continue;
      const auto old = state.find(pgno);
      t.pages.push_back({pgno, old == state.end() || random() % 8 == 0
                                   ? MakePage(settings.page_size, random())
                                   : EditPage(old->second, random())});
    }
    if (!t.header.heal) {
      mark.frame += static_cast<uint32_t>(t.pages.size());
      mark.cksum1 = static_cast<uint32_t>(random());
      mark.cksum2 = static_cast<uint32_t>(random());
      t.header.mark = mark;
    }
    Apply(t, &state);
    transactions.push_back(std::move(t));
  }
  Chain(&transactions, first, history_before);
  return transactions;
}

void AddTo(BatchWriter* writer, const TransactionSpec& transaction, Images* state) {
  writer->BeginTransaction(transaction.header);
  for (const PageSpec& page : transaction.pages) {
    const Pgno pgno(page.pgno);
    writer->AddPage(pgno, PageHash(pgno, AsBytes(page.image)), AsBytes(page.image),
                    [&](std::span<std::byte> out) {
                      const auto old = state->find(page.pgno);
                      if (old == state->end()) return false;
                      std::copy_n(AsBytes(old->second).begin(), out.size(), out.begin());
                      return true;
                    });
  }
  writer->EndTransaction();
  Apply(transaction, state);
}

std::string EncodeBatch(const std::vector<TransactionSpec>& transactions, const Images& before,
                        const BatchWriter::Settings& settings, std::vector<IndexEntry>* index) {
  BatchWriter writer(settings);
  Images state = before;
  for (const TransactionSpec& t : transactions) AddTo(&writer, t, &state);
  std::string bytes = writer.Seal();
  if (index != nullptr) *index = writer.index();
  return bytes;
}

Status Replica::ReadBase(Pgno pgno, std::span<std::byte> out) {
  bases_read.push_back(pgno.value);
  const auto page = images.find(pgno.value);
  if (page == images.end()) return {Tag::kNotFound, "no base " + std::to_string(pgno.value)};
  std::copy_n(AsBytes(page->second).begin(), out.size(), out.begin());
  return Status::Ok();
}

Status Replica::OnTransaction(const Transaction& transaction) {
  seen.push_back({transaction, {}});
  open = true;
  return Status::Ok();
}

Status Replica::OnPage(Pgno pgno, uint64_t /*hash*/, std::span<const std::byte> image) {
  seen.back().pages.push_back({pgno.value, std::string(AsText(image))});
  // At once and not at the end: the next block of a large transaction is encoded against it.
  images[pgno.value] = AsText(image);
  return Status::Ok();
}

Status Replica::OnTransactionEnd(const Transaction& transaction) {
  if (!(transaction == seen.back().header)) {
    return {Tag::kBadArgument, "the end of another transaction"};
  }
  images.erase(images.upper_bound(transaction.database_pages), images.end());
  open = false;
  return Status::Ok();
}

Result<std::span<const std::byte>> PiecewiseSource::Next() {
  const auto piece = bytes_.first(std::min(piece_, bytes_.size()));
  bytes_ = bytes_.subspan(piece.size());
  held_ = std::string(AsText(piece));
  return AsBytes(held_);
}

Status Decode(std::string_view body, const DecodeSettings& settings, BatchVisitor& visitor) {
  const auto source = BytesSource(AsBytes(body));
  return DecodeBody(*source, settings, visitor, "test object");
}

}  // namespace guildlite::testing
