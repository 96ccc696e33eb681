// SPDX-License-Identifier: Apache-2.0
#include "server/base/device_list.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/device_set.h"

namespace limpid {

std::optional<DeviceList> ParseDeviceList(absl::string_view text,
                                          std::string& why) {
  DeviceList list;
  if (text == "auto") return list;
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  const bool is_cpu = parts.first == "cpu";
  if (!is_cpu && parts.first != "cuda") {
    why = "is not auto, cpu, cuda or cuda:N[,N...]";
    return std::nullopt;
  }
  list.kind = is_cpu ? DeviceList::Kind::kCpu : DeviceList::Kind::kCuda;
  if (text == parts.first) return list;
  for (const absl::string_view one : absl::StrSplit(parts.second, ',')) {
    int64_t index = 0;
    const bool digits =
        !one.empty() && one.size() <= 3 &&
        one.find_first_not_of("0123456789") == absl::string_view::npos;
    if (!digits || !absl::SimpleAtoi(one, &index)) {
      why = absl::StrCat("has \"", one, "\", which is not a device's number");
      return std::nullopt;
    }
    if (index >= kMaxDevices) {
      why = absl::StrCat("has the number ", index, ", at most ",
                         kMaxDevices - 1, " is allowed");
      return std::nullopt;
    }
    if (std::find(list.indices.begin(), list.indices.end(), index) !=
        list.indices.end()) {
      why = absl::StrCat("names device ", index, " twice");
      return std::nullopt;
    }
    list.indices.push_back(index);
  }
  return list;
}

}  // namespace limpid
