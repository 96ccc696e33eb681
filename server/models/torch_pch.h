// SPDX-License-Identifier: Apache-2.0
//
// Precompiled for every target that uses Torch: parsing these takes most of the
// time of a small file.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
