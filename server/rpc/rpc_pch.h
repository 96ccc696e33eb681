// SPDX-License-Identifier: Apache-2.0
//
// Precompiled for this folder: parsing these takes most of the time of a small
// file.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "limpid/v1/explanation.grpc.pb.h"
#include "limpid/v1/model.grpc.pb.h"
