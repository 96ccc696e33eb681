// SPDX-License-Identifier: Apache-2.0
//
// The input tensor of a request of the Open Inference Protocol.
#pragma once

#include "inference/open_inference.pb.h"
#include "limpid/v1/explanation.pb.h"
#include "server/base/status.h"

namespace limpid {

// A parameter of requests and tensors by which clients tell themselves how to
// decode; it says nothing to us.
inline constexpr char kContentType[] = "content_type";

// Reads the one tensor: "text" or "image", BYTES of one element; "tokens",
// INT64 or INT32 of any shape; or "pixels", FP32 [3, H, W] or [1, 3, H, W]. Its
// elements are in `contents` or in raw_input_contents, little-endian, an
// element of BYTES with its length before it.
void ReadInferenceInput(const inference::ModelInferRequest& message,
                        v1::Input& input, Violations& violations);

}  // namespace limpid
