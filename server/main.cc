// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include "server/explain/engine.h"
#include "server/run_server.h"

int main(int argc, char** argv) {
  return limpid::RunServer(std::vector<std::string>(argv + 1, argv + argc),
                           limpid::Engine::Create);
}
