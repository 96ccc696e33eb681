// SPDX-License-Identifier: Apache-2.0
//
// Who made a call that proxies passed on. No gRPC.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/rpc/address_range.h"

namespace limpid {

// The address of the machine that made a call. `peer` is as gRPC says it,
// "ipv4:192.0.2.1:80" or "ipv6:%5B::1%5D:80"; `forwarded` are the values of
// x-forwarded-for in their order, each one or several addresses, to which every
// proxy adds whom it got the call from. They are followed from the last one on
// as long as a trusted proxy said them, so that what callers make up counts for
// nothing. Other kinds of peers are returned as they are.
std::string CallerAddress(absl::string_view peer,
                          const std::vector<absl::string_view>& forwarded,
                          const std::vector<AddressRange>& trusted);

}  // namespace limpid
