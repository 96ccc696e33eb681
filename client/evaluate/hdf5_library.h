// SPDX-License-Identifier: Apache-2.0
//
// HDF5, loaded when it is first needed: one file of one protocol wants it, and
// it would bring a network library along to every call of the client.
#pragma once

#include <hdf5.h>

#include "absl/status/status.h"

namespace limpid::evaluate {

#define LIMPID_HDF5_FUNCTIONS(X) \
  X(H5open)                      \
  X(H5Eget_auto2)                \
  X(H5Eset_auto2)                \
  X(H5Dget_type)                 \
  X(H5Tclose)                    \
  X(H5Tget_class)                \
  X(H5Dget_space)                \
  X(H5Sclose)                    \
  X(H5Sget_simple_extent_ndims)  \
  X(H5Sget_simple_extent_dims)   \
  X(H5Dread)                     \
  X(H5Rdereference2)             \
  X(H5Oclose)                    \
  X(H5Iget_type)                 \
  X(H5Fopen)                     \
  X(H5Fclose)                    \
  X(H5Dopen2)                    \
  X(H5Dclose)
#define LIMPID_HDF5_TYPES(X) \
  X(H5T_STD_REF_OBJ_g)       \
  X(H5T_NATIVE_UINT8_g)

// The functions and types that are used, under their own names.
struct Hdf5Library {
#define LIMPID_DECLARE(name) decltype(&::name) name = nullptr;
  LIMPID_HDF5_FUNCTIONS(LIMPID_DECLARE)
  LIMPID_HDF5_TYPES(LIMPID_DECLARE)
#undef LIMPID_DECLARE
};

// Loads it once for the process. INVALID_ARGUMENT if it is not installed; the
// message says how to install it. Thread-safe.
absl::Status LoadHdf5();

// Only after LoadHdf5() went well.
const Hdf5Library& Hdf5();

}  // namespace limpid::evaluate
