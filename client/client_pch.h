// SPDX-License-Identifier: Apache-2.0
//
// Precompiled for the client's targets: parsing these takes most of the time of
// a small file.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "limpid/v1/explanation.pb.h"
#include "limpid/v1/model.pb.h"
