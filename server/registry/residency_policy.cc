// SPDX-License-Identifier: Apache-2.0
#include "server/registry/residency_policy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace limpid {
namespace {

constexpr absl::Duration kRetryAfter = absl::Seconds(1);
// A wrong name comes from the caller and goes into a reply's trailer.
constexpr size_t kMaxNameShown = 128;
constexpr size_t kMaxNamesShown = 20;

absl::Status Busy(const std::string& model, const char* reason,
                  absl::string_view what) {
  ErrorDetails details;
  details.reason = reason;
  details.metadata["model"] = model;
  details.retry_after = kRetryAfter;
  return MakeError(absl::StatusCode::kUnavailable,
                   absl::StrCat("the model \"", model, "\" is being ", what,
                                "; try again later"),
                   std::move(details));
}

}  // namespace

absl::string_view StateName(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
      return "unloaded";
    case ModelState::kLoading:
      return "loading";
    case ModelState::kReady:
      return "ready";
    case ModelState::kUnloading:
      return "unloading";
    case ModelState::kFailed:
      return "failed";
  }
  return "unknown";
}

ResidencyAction OnLoadWish(ModelState state) {
  switch (state) {
    case ModelState::kUnloaded:
    case ModelState::kFailed:
      return ResidencyAction::kStart;
    case ModelState::kLoading:
      return ResidencyAction::kJoin;
    case ModelState::kReady:
      return ResidencyAction::kNothing;
    case ModelState::kUnloading:
      break;
  }
  return ResidencyAction::kRefuse;
}

ResidencyAction OnUnloadWish(ModelState state) {
  switch (state) {
    case ModelState::kReady:
      return ResidencyAction::kStart;
    case ModelState::kUnloading:
      return ResidencyAction::kJoin;
    case ModelState::kUnloaded:
    case ModelState::kFailed:
      return ResidencyAction::kNothing;
    case ModelState::kLoading:
      break;
  }
  return ResidencyAction::kRefuse;
}

absl::StatusOr<std::vector<std::string>> ChooseEvictions(
    const std::string& model, int64_t need, int64_t budget,
    std::vector<Resident> residents) {
  ErrorDetails details;
  details.metadata["model"] = model;
  details.metadata["need_bytes"] = absl::StrCat(need);
  details.metadata["budget_bytes"] = absl::StrCat(budget);
  if (need > budget) {
    details.reason = "MODEL_TOO_LARGE";
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        absl::StrCat("the model \"", model, "\" needs ", need,
                     " bytes, all models together may hold ", budget),
        std::move(details));
  }
  int64_t free = budget;
  for (const Resident& resident : residents) free -= resident.bytes;
  std::sort(residents.begin(), residents.end(),
            [](const Resident& a, const Resident& b) {
              return a.last_use < b.last_use;
            });
  std::vector<std::string> evicted;
  for (const Resident& resident : residents) {
    if (free >= need) break;
    if (!resident.idle) continue;
    free += resident.bytes;
    evicted.push_back(resident.name);
  }
  if (free >= need) return evicted;
  details.reason = "MODEL_MEMORY_FULL";
  details.retry_after = kRetryAfter;
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("the model \"", model, "\" needs ", need, " bytes of ",
                   budget, ", and too many of them are in use"),
      std::move(details));
}

absl::Status EvictedStatus(const std::string& model, const std::string& by) {
  ErrorDetails details;
  details.reason = "MODEL_EVICTED";
  details.metadata["model"] = model;
  details.metadata["for_model"] = by;
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("evicted to make room for \"", by, "\""),
                   std::move(details));
}

absl::Status StateStatus(const std::string& model, ModelState state,
                         const absl::Status& failure) {
  switch (state) {
    case ModelState::kReady:
      return absl::OkStatus();
    case ModelState::kLoading:
      return Busy(model, "MODEL_LOADING", "loaded");
    case ModelState::kUnloading:
      return Busy(model, "MODEL_UNLOADING", "unloaded");
    case ModelState::kFailed: {
      ErrorDetails details = GetErrorDetails(failure);
      if (details.reason.empty()) details.reason = "MODEL_FAILED";
      details.metadata["model"] = model;
      // NOT_FOUND would read as "no such model"; it is a file that is missing.
      const absl::StatusCode code =
          failure.code() == absl::StatusCode::kNotFound
              ? absl::StatusCode::kFailedPrecondition
              : failure.code();
      return MakeError(
          code,
          absl::StrCat("the model \"", model,
                       "\" could not be loaded: ", failure.message()),
          std::move(details));
    }
    case ModelState::kUnloaded:
      break;
  }
  ErrorDetails details;
  details.reason = "MODEL_NOT_LOADED";
  details.metadata["model"] = model;
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      absl::StrCat("the model \"", model, "\" is not resident; load it first"),
      std::move(details));
}

absl::Status UnknownModelStatus(absl::string_view model,
                                const std::vector<std::string>& known) {
  std::vector<std::string> shown = known;
  if (shown.size() > kMaxNamesShown) {
    shown.resize(kMaxNamesShown);
    shown.push_back(
        absl::StrCat("and ", known.size() - kMaxNamesShown, " more"));
  }
  const std::string allowed =
      known.empty()
          ? "the repository holds none"
          : absl::StrCat("known models: ", absl::StrJoin(shown, ", "));
  const std::string name =
      absl::Utf8SafeCEscape(model.substr(0, kMaxNameShown));
  ErrorDetails details;
  details.reason = "MODEL_NOT_FOUND";
  details.metadata["known_models"] = absl::StrJoin(shown, ",");
  details.violations.push_back(
      {"model", absl::StrCat("no model \"", name, "\"; ", allowed)});
  return MakeError(absl::StatusCode::kNotFound,
                   absl::StrCat("no model \"", name, "\"; ", allowed),
                   std::move(details));
}

}  // namespace limpid
