// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/stream_census.h"

#include <grpc/grpc.h>
#include <grpc/support/alloc.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"

namespace limpid {
namespace {

using Json = nlohmann::json;

// Takes the text over; an empty object for none.
Json Take(char* text) {
  if (text == nullptr) return Json::object();
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  gpr_free(text);
  return json.is_object() ? json : Json::object();
}

// Counters are written as strings and left out while they are zero.
int64_t Number(const Json& object, const char* name) {
  const auto found = object.find(name);
  int64_t value = 0;
  if (found != object.end() && found->is_string()) {
    (void)absl::SimpleAtoi(found->get_ref<const std::string&>(), &value);
  }
  return value;
}

const Json& Part(const Json& object, const char* name) {
  static const Json& nothing = *new Json(Json::object());
  const auto found = object.find(name);
  return found == object.end() ? nothing : *found;
}

// Every page of a list; `get` makes the page that begins with an id.
template <typename Get, typename Use>
void ForEach(const char* list, const char* reference, const char* id, Get get,
             Use use) {
  for (int64_t next = 0;;) {
    const Json page = Take(get(next));
    const Json& items = Part(page, list);
    for (const Json& item : items) {
      const int64_t found =
          Number(reference == nullptr ? item : Part(item, reference), id);
      next = found + 1;
      use(found, item);
    }
    if (items.empty() || page.contains("end")) return;
  }
}

template <typename Use>
void ForEachServer(Use use) {
  ForEach(
      "server", "ref", "serverId",
      [](int64_t next) { return grpc_channelz_get_servers(next); }, use);
}

}  // namespace

int64_t CountUnsuccessfulCalls() {
  int64_t count = 0;
  ForEachServer([&](int64_t, const Json& server) {
    const Json& data = Part(server, "data");
    count += Number(data, "callsStarted") - Number(data, "callsSucceeded");
  });
  return count;
}

std::vector<StreamCounts> CountStreams(int port) {
  std::vector<StreamCounts> all;
  const auto add = [&](int64_t id, const Json&) {
    const Json answer = Take(grpc_channelz_get_socket(id));
    const Json& socket = Part(answer, "socket");
    const auto address = [&](const char* side) -> const Json& {
      return Part(Part(socket, side), "tcpip_address");
    };
    if (address("local").value("port", 0) != port) return;
    StreamCounts counts;
    counts.connection = id;
    absl::Base64Unescape(address("remote").value("ip_address", ""),
                         &counts.host);
    counts.started = Number(Part(socket, "data"), "streamsStarted");
    counts.succeeded = Number(Part(socket, "data"), "streamsSucceeded");
    all.push_back(std::move(counts));
  };
  ForEachServer([&](int64_t server, const Json&) {
    ForEach(
        "socketRef", nullptr, "socketId",
        [server](int64_t next) {
          return grpc_channelz_get_server_sockets(server, next, 0);
        },
        add);
  });
  return all;
}

}  // namespace limpid
