#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>
#include <string>

namespace cachalot::http {

// For tests: a certificate of 127.0.0.1 and localhost with its key, as files. It is its own authority.
struct CertificateFiles {
  std::string certificate, key;

  // Valid from so many seconds after now until so many.
  static CertificateFiles make(const std::string& folder, const std::string& name, long begin = -60, long end = 3600) {
    const CertificateFiles files{folder + "/" + name + ".pem", folder + "/" + name + ".key"};
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
    X509* const made = certificate.get();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), static_cast<long>(std::hash<std::string>()(name) & 0xffffff));
    X509_gmtime_adj(X509_getm_notBefore(made), begin);
    X509_gmtime_adj(X509_getm_notAfter(made), end);
    X509_set_pubkey(made, key.get());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(made), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(made, X509_get_subject_name(made));
    for (const auto& [kind, value] :
         {std::pair(NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1"), std::pair(NID_basic_constraints, "CA:TRUE")}) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
      X509_add_ext(made, extension, -1);
      X509_EXTENSION_free(extension);
    }
    X509_sign(made, key.get(), EVP_sha256());
    write(files.certificate, [&](FILE* file) { PEM_write_X509(file, made); });
    write(files.key, [&](FILE* file) { PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
    return files;
  }

 private:
  static void write(const std::string& path, const auto& to) {
    FILE* const file = fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr) << path;
    to(file);
    fclose(file);
  }
};

}  // namespace cachalot::http
