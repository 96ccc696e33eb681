// SPDX-License-Identifier: Apache-2.0
//
// limpid-server: parse, wire, run, drain.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/explain/engine.h"

namespace limpid {

// The process from its arguments, without the program's name, to its exit
// status: 0 after a signal, 1 if it can't serve or has lost a device, 2 if the
// arguments are wrong. `make_engine` is Engine::Create, or what a test puts
// before it. Call it once, before any other thread starts.
int RunServer(const std::vector<std::string>& arguments,
              const std::function<absl::StatusOr<std::unique_ptr<Engine>>(
                  const EngineOptions& options)>& make_engine);

}  // namespace limpid
