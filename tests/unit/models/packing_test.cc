// SPDX-License-Identifier: Apache-2.0
#include "server/models/packing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

namespace limpid {
namespace {

at::Tensor Numbers(std::vector<int64_t> sizes) {
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return at::arange(count, at::kDouble).view(sizes);
}

TEST(PackingTest, EquallyLongSequencesAreNotPacked) {
  EXPECT_FALSE(Packing({7}).packed());
  const Packing packing({4, 4, 4});
  EXPECT_FALSE(packing.packed());
  EXPECT_FALSE(packing.begins().defined());
  const at::Tensor x = Numbers({3, 4, 2});
  EXPECT_EQ(packing.CountOf(x), 3);
  EXPECT_EQ(packing.BeginOf(x, 2), 8);
  EXPECT_EQ(packing.LengthOf(x, 2), 4);
  EXPECT_TRUE(at::equal(packing.Sequences(x, 1), x.narrow(0, 1, 1)));
  EXPECT_TRUE(at::equal(packing.Sequences(x, 1, 2), x.narrow(0, 1, 2)));
  EXPECT_TRUE(at::equal(packing.FirstPositions(x), at::zeros({1}, at::kLong)));
  const std::vector<at::Tensor> parts = packing.Split(x);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_TRUE(Packing::Join(parts).is_same(x));
}

TEST(PackingTest, OthersLieOneAfterTheOther) {
  const Packing packing({1, 3, 3, 2});
  ASSERT_TRUE(packing.packed());
  EXPECT_TRUE(
      at::equal(packing.begins(), at::tensor({0, 1, 4, 7, 9}, at::kLong)));
  const at::Tensor x = Numbers({1, 9, 2});
  EXPECT_EQ(packing.CountOf(x), 4);
  EXPECT_EQ(packing.BeginOf(x, 2), 4);
  EXPECT_EQ(packing.LengthOf(x, 2), 3);
  EXPECT_TRUE(at::equal(packing.Sequences(x, 3), x.narrow(1, 7, 2)));
  EXPECT_TRUE(at::equal(packing.Sequences(x, 1, 2),
                        x.narrow(1, 1, 6).reshape({2, 3, 2})));
  EXPECT_FALSE(packing.Sequences(at::Tensor(), 1).defined());
  EXPECT_TRUE(at::equal(packing.FirstPositions(x),
                        at::tensor({0, 1, 4, 7}, at::kLong)));
  const std::vector<at::Tensor> parts = packing.Split(x);
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_TRUE(at::equal(parts[1], x.narrow(1, 1, 3)));
  EXPECT_TRUE(at::equal(Packing::Join(parts), x));
}

// Rows between which something else lies, as those of a projection's parts.
TEST(PackingTest, RowsMayBeApart) {
  const Packing packing({2, 2, 1});
  const at::Tensor x = Numbers({1, 5, 6}).narrow(-1, 1, 2);
  EXPECT_TRUE(at::equal(packing.Sequences(x, 0, 2),
                        x.narrow(1, 0, 4).reshape({2, 2, 2})));
}

}  // namespace
}  // namespace limpid
