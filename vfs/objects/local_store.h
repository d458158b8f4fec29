// An ObjectStore in a directory: file:///root. A key is the path below the root.
//
//   1. An object appears under its name whole and durable, or not at all: written to a temporary
//      file, fsynced, then named by link(2) (kCreate) or rename(2), then the directory is fsynced.
//      kAlreadyExists is answered only after that fsync too: what exists is durable, even if its
//      writer was killed between the two steps.
//   2. Create-only rests on link(2) alone: EEXIST has one winner among all processes and machines.
//   3. What replaces or removes by name (kMatch, kOverwrite, Delete) runs under flock(2) of
//      `.guildlite-lock` in the root, so that the comparison of kMatch holds until its rename. The
//      wait for it is bounded: a stopped process that holds it makes STORE_UNREACHABLE, not a
//      hang.
//   4. A version is the XXH3-128 of the content in hex. Equal contents have equal versions, as
//      with S3's ETag: whoever swaps puts something fresh into each body (manifest.h). A ranged
//      Get would have to read the whole object for it and answers with an empty version, which
//      matches nothing.
//   5. Of the root only the last path component is created, by the first Put; the one above it
//      must exist. Let that be a directory made by hand on the volume
//      (file:///mnt/backup/guildlite/{name}): an unmounted volume is then NO_BUCKET instead of an
//      empty store.
//   6. Files of others are left alone. List skips names that are no keys, symbolic links (a cycle
//      has no end), and our own `.tmp-` and lock files, which are no keys here.
//
// Cost of a Put: 2 fsyncs, the least that makes a name and its content durable; one more per
// directory and process the first time it is used (its own name in its parent, in case the process
// that made it was killed before it could). Delete does not fsync: what a power loss brings back is
// an orphan that the sweep finds.
//
// Temporary files of killed processes are removed by the first Put of each LocalStore when they are
// a day older than its own, by the file system's clock: no upload takes a day, and one that was
// suspended for so long finds its file gone and is tried again.
//
// Not taken: O_TMPFILE with linkat(2), which leaves nothing behind but needs /proc and is missing
// on NFS and older overlayfs; renameat2(RENAME_NOREPLACE), missing on NFS, in place of link(2).
#pragma once

#include <mutex>
#include <set>
#include <string>

#include "guildlite/clock.h"
#include "guildlite/object_store.h"

namespace guildlite {

class LocalStore : public ObjectStore {
 public:
  // `root`: absolute, without a slash at the end. Nothing is read or made before the first call.
  LocalStore(std::string root, Clock& clock, Random& random);

  Result<std::string> Put(std::string_view key, std::string_view bytes,
                          const PutCondition& condition) override;
  Result<StoredObject> Get(std::string_view key,
                           std::optional<ByteRange> range = std::nullopt) override;
  Result<std::vector<ListEntry>> List(std::string_view prefix, std::string_view start_after,
                                      size_t limit) override;
  Status Delete(std::string_view key) override;
  std::string Describe() const override { return "file://" + root_; }

  // How long invariant 3 waits. A swap holds the lock for one small read, a rename and an fsync.
  static constexpr int64_t kLockWaitMs = 10000;

 private:
  class Lock;

  std::string PathOf(std::string_view key) const;
  Result<std::string> WriteTemp(std::string_view bytes);
  // Both consume the temporary file.
  Status Create(const std::string& temp, const std::string& path);
  Status Replace(const std::string& temp, const std::string& path, const PutCondition& condition);
  Status ReplaceLocked(const std::string& temp, const std::string& path,
                       const PutCondition& condition);
  Status MakeDirectoryDurable(const std::string& path);
  void SweepTemps(const std::string& newest);
  // Why nothing is found at `path`: kNotFound if the root, or at least its parent, is there.
  Status Missing(const std::string& path) const;
  Status Walk(const std::string& directory_key, std::string_view prefix,
              std::string_view start_after, size_t limit, std::vector<ListEntry>* entries) const;

  const std::string root_;
  Clock& clock_;
  Random& random_;

  std::mutex mutex_;
  // Guarded by mutex_.
  std::set<std::string> durable_directories_;  // their names were fsynced by us
  bool swept_ = false;
};

// What an errno value of a system call on a store's directory means for the store's user.
Status StoreErrnoStatus(int error, std::string_view doing, std::string_view path);

}  // namespace guildlite
