// SPDX-License-Identifier: Apache-2.0
//
// A tokenizer.json of any bytes is refused as damaged, or the tokenizer covers
// texts in order.
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "server/base/status.h"
#include "server/input/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace {

// A folder in memory that goes with the process.
class Folder {
 public:
  Folder() {
    char pattern[] = "/dev/shm/limpid-fuzz-XXXXXX";
    LIMPID_FUZZ_CHECK(mkdtemp(pattern) != nullptr);
    path_ = pattern;
  }
  ~Folder() {
    unlink(file().c_str());
    rmdir(path_.c_str());
  }
  const std::string& path() const { return path_; }
  std::string file() const { return path_ + "/tokenizer.json"; }

 private:
  std::string path_;
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  std::ofstream(folder.file(), std::ios::binary)
      .write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(size));
  const auto tokenizer = limpid::Tokenizer::Open(folder.path());
  if (!tokenizer.ok()) {
    LIMPID_FUZZ_CHECK(absl::IsDataLoss(tokenizer.status()));
    return 0;
  }
  for (const std::string text :
       {"", "a b", "k1 v2 |good| \xC3\xA9\xE2\x82\xAC", "  \n1234don't"}) {
    const auto spans = (*tokenizer)->Encode(text);
    if (!spans.ok()) {
      LIMPID_FUZZ_CHECK(absl::IsInvalidArgument(spans.status()));
      continue;
    }
    size_t begin = 0;
    for (const limpid::TokenSpan& span : *spans) {
      LIMPID_FUZZ_CHECK(span.begin >= begin && span.end >= span.begin &&
                        span.end <= text.size());
      LIMPID_FUZZ_CHECK(span.id >= 0 &&
                        span.id < (*tokenizer)->vocabulary_size());
      begin = span.begin;
      (*tokenizer)->Piece(span.id);
    }
  }
  return 0;
}
