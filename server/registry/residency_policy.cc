// SPDX-License-Identifier: Apache-2.0
#include "server/registry/residency_policy.h"

#include <algorithm>
#include <numeric>
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

ErrorDetails SizeDetails(const std::string& model, int64_t need,
                         int64_t budget) {
  ErrorDetails details;
  details.metadata["model"] = model;
  details.metadata["need_bytes"] = absl::StrCat(need);
  details.metadata["budget_bytes"] = absl::StrCat(budget);
  return details;
}

absl::Status TooLarge(const std::string& model, int64_t need, int64_t budget,
                      int64_t num_devices) {
  ErrorDetails details = SizeDetails(model, need, budget);
  details.reason = "MODEL_TOO_LARGE";
  const std::string devices =
      num_devices == 1
          ? "all models together may hold "
          : absl::StrCat("layer by layer on ", num_devices,
                         " devices it does not fit either: each may hold ");
  return MakeError(absl::StatusCode::kFailedPrecondition,
                   absl::StrCat("the model \"", model, "\" needs ", need,
                                " bytes, ", devices, budget),
                   std::move(details));
}

int64_t SumOf(const std::vector<Resident>& residents) {
  int64_t bytes = 0;
  for (const Resident& resident : residents) bytes += resident.bytes;
  return bytes;
}

// Models that go weigh more than copies, whatever their size.
std::pair<int64_t, int64_t> Loss(const std::vector<Resident>& evicted) {
  int64_t of_models = 0;
  for (const Resident& resident : evicted) {
    if (!resident.extra) of_models += resident.bytes;
  }
  return {of_models, SumOf(evicted)};
}

// Layers that follow each other, and what they need.
struct Stage {
  int64_t num_layers = 0;
  int64_t bytes = 0;
};

// As many layers on each as fit into `most` bytes; the first has `shared` on
// it, too.
std::vector<Stage> FillStages(int64_t shared,
                              const std::vector<int64_t>& layer_bytes,
                              int64_t most) {
  std::vector<Stage> stages = {{0, shared}};
  for (const int64_t bytes : layer_bytes) {
    if (stages.back().bytes + bytes > most) stages.emplace_back();
    ++stages.back().num_layers;
    stages.back().bytes += bytes;
  }
  return stages;
}

// At most `num_stages`, the largest of which is as small as can be.
std::vector<Stage> SplitLayers(int64_t shared,
                               const std::vector<int64_t>& layer_bytes,
                               int64_t num_stages) {
  int64_t low = shared, high = shared;
  for (const int64_t bytes : layer_bytes) {
    low = std::max(low, bytes);
    high += bytes;
  }
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (std::ssize(FillStages(shared, layer_bytes, middle)) <= num_stages) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return FillStages(shared, layer_bytes, high);
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

int64_t FreeBytes(int64_t budget, const std::vector<Resident>& residents) {
  return budget - SumOf(residents);
}

absl::StatusOr<std::vector<Resident>> ChooseEvictions(
    const std::string& model, int64_t need, int64_t budget,
    std::vector<Resident> residents) {
  if (need > budget) return TooLarge(model, need, budget, /*num_devices=*/1);
  int64_t free = FreeBytes(budget, residents);
  std::sort(residents.begin(), residents.end(),
            [](const Resident& a, const Resident& b) {
              return std::make_pair(!a.extra, a.last_use) <
                     std::make_pair(!b.extra, b.last_use);
            });
  std::vector<Resident> evicted;
  for (const Resident& resident : residents) {
    if (free >= need) break;
    if (!resident.idle) continue;
    free += resident.bytes;
    evicted.push_back(resident);
  }
  if (free >= need) return evicted;
  ErrorDetails details = SizeDetails(model, need, budget);
  details.reason = "MODEL_MEMORY_FULL";
  details.retry_after = kRetryAfter;
  return MakeError(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("the model \"", model, "\" needs ", need, " bytes of ",
                   budget, ", and too many of them are in use"),
      std::move(details));
}

absl::StatusOr<PlacementChoice> ChoosePlacement(
    const std::string& model, int64_t need,
    const std::vector<int64_t>& layer_bytes, int64_t budget,
    const std::vector<std::vector<Resident>>& residents) {
  const auto num_devices = std::ssize(residents);
  // The one with most room first.
  std::vector<int64_t> order(num_devices);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return FreeBytes(budget, residents[a]) > FreeBytes(budget, residents[b]);
  });
  PlacementChoice choice;
  choice.bytes.resize(num_devices);
  choice.evictions.resize(num_devices);
  if (need <= budget) {
    absl::StatusOr<std::vector<Resident>> best = absl::UnknownError("");
    int64_t device = order.front();
    for (const int64_t one : order) {
      auto evicted = ChooseEvictions(model, need, budget, residents[one]);
      const bool better =
          evicted.ok() && (!best.ok() || Loss(*evicted) < Loss(*best));
      if (one != order.front() && !better) continue;
      best = std::move(evicted);
      device = one;
    }
    LIMPID_RETURN_IF_ERROR(best.status());
    choice.placement = Placement::On(device);
    choice.bytes[device] = need;
    choice.evictions[device] = *std::move(best);
    return choice;
  }
  int64_t shared = need;
  for (const int64_t bytes : layer_bytes) shared -= bytes;
  for (int64_t num_stages = 2; num_stages <= num_devices; ++num_stages) {
    const std::vector<Stage> stages =
        SplitLayers(shared, layer_bytes, num_stages);
    if (std::any_of(stages.begin(), stages.end(),
                    [&](const Stage& stage) { return stage.bytes > budget; })) {
      continue;
    }
    choice.placement.stages.clear();
    for (size_t i = 0; i < stages.size(); ++i) {
      const int64_t device = order[i];
      choice.placement.stages.push_back({device, stages[i].num_layers});
      choice.bytes[device] = stages[i].bytes;
      LIMPID_ASSIGN_OR_RETURN(
          choice.evictions[device],
          ChooseEvictions(model, stages[i].bytes, budget, residents[device]));
    }
    return choice;
  }
  return TooLarge(model, need, budget, num_devices);
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
