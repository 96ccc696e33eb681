// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/flood_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace limpid {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Of 1,600 bytes, so that nobody goes for less than 100.
class FloodMeterTest : public ::testing::Test {
 protected:
  // Descriptors of those to be rid of.
  std::vector<int> Look(const std::vector<ConnectionState>& connections) {
    std::vector<int> descriptors;
    for (const auto& flood : meter_.Look(connections)) {
      descriptors.push_back(flood.connection.descriptor);
    }
    return descriptors;
  }
  static ConnectionState At(int descriptor, int64_t read, int64_t sent) {
    ConnectionState connection;
    connection.descriptor = descriptor;
    connection.read = read;
    connection.sent = sent;
    return connection;
  }

  FloodMeter meter_{1600};
};

TEST_F(FloodMeterTest, WhoBringsMoreThanTheLimitUnanswered) {
  EXPECT_THAT(Look({At(5, 0, 10)}), IsEmpty());
  EXPECT_THAT(Look({At(5, 1600, 10)}), IsEmpty());
  EXPECT_THAT(Look({At(5, 1601, 10)}), ElementsAre(5));
}

TEST_F(FloodMeterTest, AnswersBeginAnew) {
  for (int64_t read = 0; read < 100000; read += 1600) {
    EXPECT_THAT(Look({At(5, read, 10 + read / 1600)}), IsEmpty()) << read;
  }
}

TEST_F(FloodMeterTest, ConnectionsAddUpAndTheWorstGoFirst) {
  Look({At(5, 0, 1), At(6, 0, 1), At(7, 0, 1)});
  EXPECT_THAT(Look({At(5, 500, 1), At(6, 600, 1), At(7, 500, 1)}), IsEmpty());
  EXPECT_THAT(Look({At(5, 500, 1), At(6, 700, 1), At(7, 500, 1)}),
              ElementsAre(6));
  EXPECT_THAT(Look({At(5, 2000, 1), At(6, 3000, 1), At(7, 1000, 1)}),
              ElementsAre(6, 5));
}

TEST_F(FloodMeterTest, ManyThatBringLittleAreNoFlood) {
  std::vector<ConnectionState> connections;
  for (int i = 0; i < 1000; ++i) connections.push_back(At(i, 0, 1));
  Look(connections);
  for (ConnectionState& connection : connections) connection.read = 99;
  EXPECT_THAT(Look(connections), IsEmpty());
  connections[7].read = 100;
  EXPECT_THAT(Look(connections), ElementsAre(7));
}

TEST_F(FloodMeterTest, ConnectionsThatHaveJustComeOweNothing) {
  EXPECT_THAT(Look({At(5, 100000, 1)}), IsEmpty());
  EXPECT_THAT(Look({}), IsEmpty());
  EXPECT_THAT(Look({At(5, 300000, 1)}), IsEmpty());
}

TEST_F(FloodMeterTest, ADescriptorMayBeAnotherConnectionsNextTime) {
  Look({At(5, 5000, 1)});
  EXPECT_THAT(Look({At(5, 0, 1)}), IsEmpty());
  EXPECT_THAT(Look({At(5, 1600, 1)}), IsEmpty());
}

}  // namespace
}  // namespace limpid
