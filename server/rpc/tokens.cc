// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/mapped_file.h"

namespace limpid {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;
constexpr size_t kMaxNameBytes = 64;
constexpr size_t kMinTokenBytes = 16;
constexpr size_t kMaxTokenBytes = 4096;
constexpr absl::string_view kDigestPrefix = "sha256:";
constexpr absl::string_view kScheme = "bearer ";

using Digest = std::array<unsigned char, SHA256_DIGEST_LENGTH>;

Digest DigestOf(absl::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(),
         digest.data());
  return digest;
}

bool IsName(absl::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

bool IsToken(absl::string_view token) {
  return token.size() >= kMinTokenBytes && token.size() <= kMaxTokenBytes &&
         std::all_of(token.begin(), token.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) ||
                  absl::StrContains("-._~+/=", static_cast<char>(c));
         });
}

// What is wrong with a token, or nothing.
absl::string_view ReadToken(absl::string_view text, Digest& digest) {
  if (!absl::ConsumePrefix(&text, kDigestPrefix)) {
    if (!IsToken(text)) {
      return "the token is not 16 to 4096 letters, digits and -._~+/=";
    }
    digest = DigestOf(text);
    return {};
  }
  if (text.size() != 2 * digest.size() ||
      !std::all_of(text.begin(), text.end(),
                   [](unsigned char c) { return absl::ascii_isxdigit(c); })) {
    return "\"sha256:\" is not followed by 64 hexadecimal digits";
  }
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return {};
}

absl::Status Unauthenticated(absl::string_view reason,
                             absl::string_view message) {
  return MakeError(absl::StatusCode::kUnauthenticated, reason, message);
}

}  // namespace

absl::StatusOr<TokenSet> TokenSet::Parse(absl::string_view text) {
  TokenSet set;
  Violations mistakes;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    const std::string where = absl::StrCat("line ", number);
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() != 3) {
      mistakes.Add(where, "is not NAME ROLE TOKEN");
      continue;
    }
    Entry entry;
    entry.caller.name = std::string(words[0]);
    if (!IsName(words[0])) {
      mistakes.Add(where, "the name is not 1 to 64 letters, digits and ._-");
    }
    entry.caller.role = words[1] == "admin" ? Role::kAdmin : Role::kExplain;
    if (words[1] != "admin" && words[1] != "explain") {
      mistakes.Add(where, "the role is not explain or admin");
    }
    const absl::string_view wrong = ReadToken(words[2], entry.digest);
    if (!wrong.empty()) mistakes.Add(where, wrong);
    set.entries_.push_back(std::move(entry));
  }
  if (number > 0 && set.entries_.empty()) mistakes.Add("file", "has no token");
  LIMPID_RETURN_IF_ERROR(mistakes.ToStatus("TOKEN_FILE_INVALID"));
  return set;
}

std::optional<Caller> TokenSet::Find(absl::string_view token) const {
  const Digest digest = DigestOf(token);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) {
      found = &entry;
    }
  }
  if (found == nullptr) return std::nullopt;
  return found->caller;
}

bool TokenFile::Version::operator==(const Version& other) const {
  const auto same = [](const timespec& a, const timespec& b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
  };
  return device == other.device && inode == other.inode && size == other.size &&
         same(modified, other.modified) && same(changed, other.changed);
}

absl::StatusOr<TokenFile::Version> TokenFile::Look(const std::string& path) {
  struct stat file;
  if (stat(path.c_str(), &file) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("can't read ", path));
  }
  return Version{file.st_dev, file.st_ino, file.st_size, file.st_mtim,
                 file.st_ctim};
}

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(
    const std::string& path, OnReload on_reload) {
  std::unique_ptr<TokenFile> file(new TokenFile(path, std::move(on_reload)));
  LIMPID_ASSIGN_OR_RETURN(const Version version, Look(path));
  LIMPID_ASSIGN_OR_RETURN(const std::string text,
                          ReadFile(path, kMaxFileBytes));
  LIMPID_ASSIGN_OR_RETURN(TokenSet tokens, TokenSet::Parse(text));
  MutexLock lock(file->mutex_);
  file->seen_ = version;
  file->tokens_ = std::make_shared<const TokenSet>(std::move(tokens));
  return file;
}

std::shared_ptr<const TokenSet> TokenFile::Current() {
  MutexLock lock(mutex_);
  const absl::StatusOr<Version> version = Look(path_);
  const std::optional<Version> now =
      version.ok() ? std::optional<Version>(*version) : std::nullopt;
  if (now == seen_) return tokens_;
  seen_ = now;
  absl::Status status = version.status();
  if (status.ok()) {
    absl::StatusOr<std::string> text = ReadFile(path_, kMaxFileBytes);
    absl::StatusOr<TokenSet> tokens =
        text.ok() ? TokenSet::Parse(*text) : text.status();
    status = tokens.status();
    if (tokens.ok()) {
      tokens_ = std::make_shared<const TokenSet>(*std::move(tokens));
    }
  }
  if (on_reload_) on_reload_(status);
  return tokens_;
}

absl::StatusOr<Caller> TokenFile::Authenticate(absl::string_view header) {
  if (header.empty()) {
    return Unauthenticated("TOKEN_MISSING",
                           "this server wants a token: send it as metadata "
                           "\"authorization: Bearer TOKEN\"");
  }
  if (!absl::StartsWithIgnoreCase(header, kScheme) ||
      !IsToken(header.substr(kScheme.size()))) {
    return Unauthenticated("TOKEN_MALFORMED",
                           "the authorization metadata is not \"Bearer\", a "
                           "blank and a token");
  }
  std::optional<Caller> caller = Current()->Find(header.substr(kScheme.size()));
  if (!caller) {
    return Unauthenticated("TOKEN_UNKNOWN", "the token is not known here");
  }
  return *std::move(caller);
}

absl::Status RequireRole(const Caller& caller, Role role) {
  if (role == Role::kExplain || caller.role == Role::kAdmin) {
    return absl::OkStatus();
  }
  ErrorDetails details;
  details.reason = "ROLE_MISSING";
  details.metadata["caller"] = caller.name;
  details.metadata["role"] = "admin";
  return MakeError(
      absl::StatusCode::kPermissionDenied,
      absl::StrCat("\"", caller.name, "\" has no token of the role admin"),
      std::move(details));
}

}  // namespace limpid
