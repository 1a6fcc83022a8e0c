/* An authority of its own and a certificate by it, both made at the start. The authority is written to a file, which
   clients are told to trust: they verify as they would elsewhere. */
#include "null_s3.h"

#ifndef WITH_TLS

struct ssl_ctx_st *tls_context(const char *authority_file)
{
    (void)authority_file;
    return NULL;
}

#else

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

static EVP_PKEY *new_key(void)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
    EVP_PKEY_keygen_init(context);
    EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1);
    EVP_PKEY_keygen(context, &key);
    EVP_PKEY_CTX_free(context);
    return key;
}

static void extend(X509 *certificate, X509 *issuer, int kind, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    if (extension)
        X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
}

/* issuer NULL: by itself. */
static X509 *new_certificate(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), issuer ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 86400);
    X509_set_pubkey(certificate, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                               -1, 0);
    X509 *by = issuer ? issuer : certificate;
    X509_set_issuer_name(certificate, X509_get_subject_name(by));
    extend(certificate, by, NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    extend(certificate, by, NID_key_usage, issuer ? "critical,digitalSignature" : "critical,keyCertSign,cRLSign");
    extend(certificate, by, NID_subject_key_identifier, "hash");
    extend(certificate, by, NID_authority_key_identifier, "keyid");
    if (issuer) {
        extend(certificate, by, NID_subject_alt_name, "IP:127.0.0.1,DNS:localhost");
        extend(certificate, by, NID_ext_key_usage, "serverAuth");
    }
    X509_sign(certificate, issuer ? issuer_key : key, EVP_sha256());
    return certificate;
}

struct ssl_ctx_st *tls_context(const char *authority_file)
{
    EVP_PKEY *authority_key = new_key(), *key = new_key();
    X509 *authority = new_certificate(authority_key, "null-s3 authority", NULL, NULL);
    X509 *certificate = new_certificate(key, "127.0.0.1", authority, authority_key);
    FILE *file = fopen(authority_file, "w");
    if (!file)
        return NULL;
    int written = PEM_write_X509(file, authority);
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (fclose(file) != 0 || !written || SSL_CTX_use_certificate(context, certificate) != 1 ||
        SSL_CTX_use_PrivateKey(context, key) != 1)
        return NULL;
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return context;
}

#endif
