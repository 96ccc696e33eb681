// SPDX-License-Identifier: Apache-2.0
#include "server/input/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_cat.h"

namespace limpid {
namespace {

// The compiled code needs stack in proportion to a repeated group's matches.
constexpr size_t kFirstStackBytes = 64 << 10;
constexpr size_t kMaxStackBytes = 64 << 20;
// Work per match, counted by PCRE2 in calls of its matching routine.
constexpr uint32_t kMatchLimit = 100'000'000;
constexpr uint32_t kHeapLimitKib = 256 << 10;

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
template <typename T, auto kFree>
using Handle = std::unique_ptr<T, Free<kFree>>;

using Code = Handle<pcre2_code, pcre2_code_free>;
using MatchData = Handle<pcre2_match_data, pcre2_match_data_free>;
using MatchContext = Handle<pcre2_match_context, pcre2_match_context_free>;
using JitStack = Handle<pcre2_jit_stack, pcre2_jit_stack_free>;

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct SplitRegex::Impl {
  Code code;
};

SplitRegex::SplitRegex(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

absl::StatusOr<SplitRegex> SplitRegex::Create(const std::string& pattern) {
  int error = 0;
  size_t position = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                          pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                          &position, nullptr));
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(ErrorText(error), " at byte ", position));
  }
  uint32_t matches_nothing = 0;
  pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_nothing);
  if (matches_nothing != 0) {
    return absl::InvalidArgumentError("it can match the empty text");
  }
  // Where the compiler is missing, the interpreter gives the same matches.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  auto impl = std::make_unique<Impl>();
  impl->code = std::move(code);
  return SplitRegex(std::move(impl));
}

absl::StatusOr<std::vector<std::pair<size_t, size_t>>> SplitRegex::FindAll(
    absl::string_view text) const {
  MatchData match(
      pcre2_match_data_create_from_pattern(impl_->code.get(), nullptr));
  MatchContext context(pcre2_match_context_create(nullptr));
  JitStack stack;
  if (match == nullptr || context == nullptr) {
    return absl::ResourceExhaustedError("no memory to split the text");
  }
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);

  std::vector<std::pair<size_t, size_t>> out;
  for (size_t start = 0; start < text.size();) {
    // The caller vouches for the UTF-8: checking it for every match would make
    // the whole quadratic.
    const int result = pcre2_match(
        impl_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
        text.size(), start, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && stack == nullptr) {
      // The thread's own stack, of which the code takes little, was too small.
      stack.reset(
          pcre2_jit_stack_create(kFirstStackBytes, kMaxStackBytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      if (stack != nullptr) continue;
    }
    if (result < 0) {
      return MakeError(
          absl::StatusCode::kResourceExhausted, "TOKENIZER_LIMIT",
          absl::StrCat("the tokenizer's expression fails at byte ", start,
                       " of a part of the text: ", ErrorText(result)));
    }
    const size_t* range = pcre2_get_ovector_pointer(match.get());
    // With \K a match may end before it begins.
    if (range[1] <= start || range[0] >= range[1]) break;
    out.emplace_back(range[0], range[1]);
    start = range[1];
  }
  return out;
}

}  // namespace limpid
