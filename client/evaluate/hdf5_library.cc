// SPDX-License-Identifier: Apache-2.0
#include "client/evaluate/hdf5_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "client/evaluate/protocol.h"

namespace limpid::evaluate {
namespace {

struct Loaded {
  Hdf5Library library;
  absl::Status status;
};

// In a program that is linked to HDF5, too, its variables may have moved into
// the program itself; the library's own copies are not used then.
void* Find(void* file, const char* name) {
  void* const shared = dlsym(RTLD_DEFAULT, name);
  return shared != nullptr ? shared : dlsym(file, name);
}

Loaded Load() {
  Loaded out;
  void* const file = dlopen(LIMPID_HDF5_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (file == nullptr) {
    out.status = DataError(
        absl::StrCat("reading MATLAB files needs HDF5 (on Debian: apt install "
                     "libhdf5-103-1): ",
                     dlerror()));
    return out;
  }
#define LIMPID_FIND(name)                                              \
  out.library.name =                                                   \
      reinterpret_cast<decltype(out.library.name)>(Find(file, #name)); \
  if (out.library.name == nullptr) {                                   \
    out.status = DataError(LIMPID_HDF5_LIBRARY " has no " #name);      \
    return out;                                                        \
  }
  LIMPID_HDF5_FUNCTIONS(LIMPID_FIND)
  LIMPID_HDF5_TYPES(LIMPID_FIND)
#undef LIMPID_FIND
  if (out.library.H5open() < 0) {
    out.status = DataError(LIMPID_HDF5_LIBRARY " can't be used");
  }
  return out;
}

const Loaded& TheLibrary() {
  static const Loaded* const loaded = new Loaded(Load());
  return *loaded;
}

}  // namespace

absl::Status LoadHdf5() { return TheLibrary().status; }

const Hdf5Library& Hdf5() { return TheLibrary().library; }

}  // namespace limpid::evaluate
