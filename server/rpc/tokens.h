// SPDX-License-Identifier: Apache-2.0
//
// Bearer tokens and what their holders may do. No gRPC.
//
// A token file has a line for every token: NAME ROLE TOKEN, separated by
// blanks. NAME (1 to 64 letters, digits, ".", "_", "-") is written to logs;
// several tokens may share one while they are being replaced. ROLE is "explain"
// or "admin". TOKEN is 16 to 4096 characters of RFC 6750's alphabet, or
// "sha256:" and the hexadecimal SHA-256 of it. Empty lines and lines that begin
// with "#" are ignored.
#pragma once

#include <sys/stat.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/mutex.h"
#include "server/base/status.h"

namespace limpid {

// An admin may do all that a holder of the other role may.
enum class Role { kExplain, kAdmin };

// Who presented a token.
struct Caller {
  std::string name;
  Role role = Role::kExplain;
};

// The tokens of a file. Keeps their digests only. Immutable.
class TokenSet {
 public:
  // INVALID_ARGUMENT names every line that is wrong, and never what it holds.
  static absl::StatusOr<TokenSet> Parse(absl::string_view text);

  // Takes the same time whether and wherever a token matches.
  std::optional<Caller> Find(absl::string_view token) const;

 private:
  struct Entry {
    Caller caller;
    std::array<unsigned char, 32> digest;
  };
  std::vector<Entry> entries_;
};

// A token file that may be replaced at any time, best by renaming: the next
// call sees the new one. A new file that can't be used changes nothing.
// Thread-safe.
class TokenFile {
 public:
  // Told of every reload: ok, or why the old tokens stay.
  using OnReload = std::function<void(const absl::Status&)>;

  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(
      const std::string& path, OnReload on_reload);

  // Reads an authorization header, "Bearer TOKEN". UNAUTHENTICATED, reasons
  // TOKEN_MISSING (an empty header), TOKEN_MALFORMED, TOKEN_UNKNOWN.
  absl::StatusOr<Caller> Authenticate(absl::string_view header);

 private:
  TokenFile(std::string path, OnReload on_reload)
      : path_(std::move(path)), on_reload_(std::move(on_reload)) {}

  // What tells one version of a file from another.
  struct Version {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size = 0;
    timespec modified = {};
    timespec changed = {};
    bool operator==(const Version& other) const;
  };

  static absl::StatusOr<Version> Look(const std::string& path);
  std::shared_ptr<const TokenSet> Current();

  const std::string path_;
  const OnReload on_reload_;
  Mutex mutex_;
  // Of the last attempt to read, whether it succeeded or not; none: there was
  // no file.
  std::optional<Version> seen_ LIMPID_GUARDED_BY(mutex_);
  std::shared_ptr<const TokenSet> tokens_ LIMPID_GUARDED_BY(mutex_);
};

// PERMISSION_DENIED, reason ROLE_MISSING, unless `caller` has `role`.
absl::Status RequireRole(const Caller& caller, Role role);

}  // namespace limpid
