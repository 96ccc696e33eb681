// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/certificates.h"
#include "tests/support/temporary_repository.h"

namespace limpid {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class TlsTest : public ::testing::Test {
 protected:
  TlsTest() {
    folder_.AddFile("cert", server_.certificate);
    folder_.AddFile("key", server_.key);
    folder_.AddFile("ca", authority_.certificate);
    folder_.AddFile("junk", "no certificate");
    folder_.AddFile("other-key", testing::Issue(authority_, "other").key);
    folder_.AddFile("old", testing::Issue(authority_, "old", -1).certificate);
  }
  std::vector<std::string> Wrong(const std::string& certificate,
                                 const std::string& key,
                                 const std::string& client_ca) {
    const auto path = [&](const std::string& name) {
      return name.empty() ? "" : folder_.path() + "/" + name;
    };
    TlsFiles files;
    files.certificate = path(certificate);
    files.key = path(key);
    files.client_ca = path(client_ca);
    std::vector<std::string> fields;
    for (const auto& mistake : CheckTlsFiles(files)) {
      fields.push_back(mistake.field);
    }
    return fields;
  }

  const testing::Identity authority_ = testing::MakeAuthority("authority");
  const testing::Identity server_ = testing::Issue(authority_, "server");
  testing::TemporaryRepository folder_;
};

TEST_F(TlsTest, FilesThatFitAreFine) {
  EXPECT_THAT(Wrong("cert", "key", ""), IsEmpty());
  EXPECT_THAT(Wrong("cert", "key", "ca"), IsEmpty());
}

TEST_F(TlsTest, EveryFileIsJudged) {
  EXPECT_THAT(Wrong("junk", "junk", "junk"),
              ElementsAre("certificate_file", "key_file", "client_ca_file"));
  EXPECT_THAT(Wrong("nowhere", "nowhere", "nowhere"),
              ElementsAre("certificate_file", "key_file", "client_ca_file"));
}

TEST_F(TlsTest, KeysMustBelongToTheirCertificates) {
  EXPECT_THAT(Wrong("cert", "other-key", ""), ElementsAre("key_file"));
}

TEST_F(TlsTest, ExpiredCertificatesAreRefused) {
  EXPECT_THAT(Wrong("old", "other-key", ""),
              ElementsAre("certificate_file", "key_file"));
}

}  // namespace
}  // namespace limpid
