#include "vfs/replicate/sidecar.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <nlohmann/json.hpp>

#include "vfs/base/bytes.h"
#include "vfs/base/checksum.h"

namespace guildlite {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLinkOffset = 0;
constexpr uint64_t kAcknowledgedOffset = 512;
constexpr uint64_t kHealOwedOffset = 1024;

std::string Hex(uint64_t v) {
  char b[17];
  std::snprintf(b, sizeof b, "%016" PRIx64, v);
  return b;
}

std::optional<uint64_t> FromHex(const Json& json, const char* key) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_string()) return std::nullopt;
  const auto& text = it->get_ref<const std::string&>();
  if (text.size() != 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return std::nullopt;
  }
  return std::strtoull(text.c_str(), nullptr, 16);
}

std::string Sealed(std::string record) {
  PutBig64(&record, Hash64(AsBytes(record)));
  return record;
}

// The record's bytes if its checksum holds.
std::optional<std::string> ReadSealed(const File& file, uint64_t offset, size_t size) {
  std::string b(size + 8, '\0');
  auto n = file.ReadAt(offset, std::as_writable_bytes(std::span(b.data(), b.size())));
  if (!n.ok() || *n != b.size()) return std::nullopt;
  if (LoadBig64(b.data() + size) != Hash64(AsBytes(b).first(size))) return std::nullopt;
  b.resize(size);
  return b;
}

}  // namespace

bool Sidecar::Exists() const { return FileExists(directory_); }

Status Sidecar::Lock(const std::string& holder) {
  if (locked()) return Status::Ok();
  struct statfs fs;
  if (::statfs(DirectoryOf(directory_).c_str(), &fs) == 0) {
    // flock and shared memory of these do not reach other hosts, or not reliably.
    for (const long magic : {long{NFS_SUPER_MAGIC}, long{0xFF534D42L /* cifs */},
                             long{0xFE534D42L /* smb2 */}, long{AFS_SUPER_MAGIC}}) {
      if (fs.f_type == magic) {
        return Status(Tag::kStoreUnsafe,
                      directory_ +
                          " is on a network file system, where SQLite's WAL mode and "
                          "locks are not safe; put the database on a local disk");
      }
    }
  }
  GUILDLITE_RETURN_IF_ERROR(MakeDirectory(directory_));
  auto lock = File::Open(directory_ + "/lock", O_RDWR | O_CREAT, 0644);
  if (!lock.ok()) return lock.status();
  if (::flock(lock->fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", lock->path());
    return Status(Tag::kOwned, "another process replicates this database (" + Holder() +
                                   "; it holds " + lock->path() + "); call this there");
  }
  (void)lock->Truncate(0);
  (void)lock->WriteAt(0, AsBytes(holder));
  auto cursor = File::Open(directory_ + "/cursor", O_RDWR | O_CREAT, 0644);
  if (!cursor.ok()) return cursor.status();
  auto pages = File::Open(directory_ + "/pages", O_RDWR | O_CREAT, 0644);
  if (!pages.ok()) return pages.status();
  GUILDLITE_RETURN_IF_ERROR(MakeDirectory(spool_directory()));
  lock_ = std::move(*lock);
  cursor_ = std::move(*cursor);
  pages_ = std::move(*pages);
  return Status::Ok();
}

std::string Sidecar::Holder() const {
  const auto text = ReadWholeFile(directory_ + "/lock");
  return text.ok() && !text->empty() ? *text : "unnamed";
}

bool Sidecar::LockIsCurrent() const {
  if (!locked()) return false;
  const auto held = lock_.Identity();
  const auto named = IdentityOf(directory_ + "/lock");
  return held.ok() && named.ok() && held->SameFile(*named);
}

void Sidecar::Unlock() {
  pages_.Close();
  cursor_.Close();
  lock_.Close();
}

void Sidecar::CloseInChild() { Unlock(); }

Result<std::optional<SidecarState>> Sidecar::ReadState() const {
  auto text = ReadWholeFile(directory_ + "/state");
  if (!text.ok()) {
    if (text.status().tag() == Tag::kNotFound) return std::optional<SidecarState>();
    return text.status();
  }
  const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::optional<SidecarState>();
  const auto lineage = FromHex(json, "lineage");
  const auto epoch = FromHex(json, "epoch");
  const auto session = FromHex(json, "session");
  const auto device = FromHex(json, "device");
  const auto inode = FromHex(json, "inode");
  const auto text_of = [&](const char* key) {
    const auto it = json.find(key);
    return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  if (!lineage || !epoch || !session || !device || !inode) return std::optional<SidecarState>();
  SidecarState s;
  s.lineage = Lineage(*lineage);
  s.epoch = Epoch(static_cast<uint32_t>(*epoch));
  s.session = Session(*session);
  s.planned = Session(FromHex(json, "planned").value_or(0));
  s.url = text_of("url");
  s.options_json = text_of("options");
  s.device = *device;
  s.inode = *inode;
  s.boot_id = text_of("boot_id");
  s.open = json.value("open", Json(true)) != Json(false);
  s.diverged = json.value("diverged", Json(false)) == Json(true);
  return std::optional<SidecarState>(s);
}

Status Sidecar::WriteState(const SidecarState& s) {
  const Json json = {{"format", 1},
                     {"lineage", Hex(s.lineage.value)},
                     {"epoch", Hex(s.epoch.value)},
                     {"session", Hex(s.session.value)},
                     {"planned", Hex(s.planned.value)},
                     {"url", s.url},
                     {"options", s.options_json},
                     {"device", Hex(s.device)},
                     {"inode", Hex(s.inode)},
                     {"boot_id", s.boot_id},
                     {"open", s.open},
                     {"diverged", s.diverged}};
  return ReplaceFile(directory_ + "/state",
                     json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
}

Status Sidecar::ForgetState() {
  GUILDLITE_RETURN_IF_ERROR(RemoveFile(directory_ + "/state"));
  GUILDLITE_RETURN_IF_ERROR(RemoveClean());
  GUILDLITE_RETURN_IF_ERROR(RemoveFile(directory_ + "/join"));
  if (cursor_.is_open()) GUILDLITE_RETURN_IF_ERROR(cursor_.Truncate(0));
  if (pages_.is_open()) GUILDLITE_RETURN_IF_ERROR(pages_.Truncate(0));
  return Status::Ok();
}

void Sidecar::RemoveFolder() {
  if (!ForgetState().ok()) return;
  (void)RemoveFile(directory_ + "/cursor");
  (void)RemoveFile(directory_ + "/pages");
  (void)::rmdir(spool_directory().c_str());
  (void)RemoveFile(directory_ + "/lock");
  Unlock();
  (void)::rmdir(directory_.c_str());
}

Status Sidecar::WriteLink(const WalLink& link) {
  std::string b;
  PutBig32(&b, link.salt1);
  PutBig32(&b, link.salt2);
  PutBig64(&b, link.txid.value);
  PutBig64(&b, link.history_hash);
  return cursor_.WriteAt(kLinkOffset, AsBytes(Sealed(std::move(b))));
}

Status Sidecar::WriteHealOwed(bool owed) {
  return cursor_.WriteAt(kHealOwedOffset, AsBytes(Sealed(owed ? "owed" : "none")));
}

bool Sidecar::ReadHealOwed() const {
  const auto b = ReadSealed(cursor_, kHealOwedOffset, 4);
  return b && *b == "owed";
}

std::optional<WalLink> Sidecar::ReadLink() const {
  const auto b = ReadSealed(cursor_, kLinkOffset, 24);
  if (!b) return std::nullopt;
  Cursor c(AsBytes(*b));
  WalLink link;
  link.salt1 = c.Big32();
  link.salt2 = c.Big32();
  link.txid = Txid(c.Big64());
  link.history_hash = c.Big64();
  return link;
}

Status Sidecar::WriteAcknowledged(const Acknowledged& a) {
  std::string b;
  PutBig64(&b, a.next_slot.value);
  PutBig64(&b, a.previous_hash);
  PutBig64(&b, a.txid.value);
  PutBig64(&b, a.history_hash);
  PutBig32(&b, a.heal_open ? 1 : 0);
  PutBig64(&b, a.lineage.value);
  PutBig32(&b, a.epoch.value);
  return cursor_.WriteAt(kAcknowledgedOffset, AsBytes(Sealed(std::move(b))));
}

std::optional<Acknowledged> Sidecar::ReadAcknowledged() const {
  const auto b = ReadSealed(cursor_, kAcknowledgedOffset, 48);
  if (!b) return std::nullopt;
  Cursor c(AsBytes(*b));
  Acknowledged a;
  a.next_slot = Slot(c.Big64());
  a.previous_hash = c.Big64();
  a.txid = Txid(c.Big64());
  a.history_hash = c.Big64();
  a.heal_open = c.Big32() != 0;
  a.lineage = Lineage(c.Big64());
  a.epoch = Epoch(c.Big32());
  return a;
}

Status Sidecar::WriteClean(const CleanClose& clean) {
  std::string b;
  PutBig64(&b, clean.device);
  PutBig64(&b, clean.inode);
  PutBig64(&b, clean.size);
  PutBig64(&b, static_cast<uint64_t>(clean.ctime_ns));
  PutBig64(&b, static_cast<uint64_t>(clean.recorded_ns));
  PutBig64(&b, clean.txid.value);
  PutBig64(&b, clean.rolling_checksum);
  return ReplaceFile(directory_ + "/clean", Sealed(std::move(b)));
}

std::optional<CleanClose> Sidecar::ReadClean() const {
  auto file = File::Open(directory_ + "/clean", O_RDONLY);
  if (!file.ok()) return std::nullopt;
  const auto b = ReadSealed(*file, 0, 56);
  if (!b) return std::nullopt;
  Cursor c(AsBytes(*b));
  CleanClose clean;
  clean.device = c.Big64();
  clean.inode = c.Big64();
  clean.size = c.Big64();
  clean.ctime_ns = static_cast<int64_t>(c.Big64());
  clean.recorded_ns = static_cast<int64_t>(c.Big64());
  clean.txid = Txid(c.Big64());
  clean.rolling_checksum = c.Big64();
  return clean;
}

Status Sidecar::RemoveClean() { return RemoveFile(directory_ + "/clean"); }

}  // namespace guildlite
