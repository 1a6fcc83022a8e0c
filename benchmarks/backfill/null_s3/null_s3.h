/* A server that answers like S3 and keeps nothing but names, sizes and headers: what is measured with it is the client.
   It checks no signature and no checksum, drops bodies unread, and speaks to any number of clients from one thread. */
#ifndef NULL_S3_H
#define NULL_S3_H

#include <stddef.h>
#include <time.h>

#define ETAG_SIZE 48
#define MAX_LEVEL 20

/* objects.c: every object of every bucket, ordered by "bucket/key". */
struct object {
    char *name;    /* bucket/key */
    char *headers; /* those that HEAD gives back, each line with its end */
    char etag[ETAG_SIZE];
    long long size;
    time_t written;
    struct object *next[MAX_LEVEL];
};

struct object *object_from(const char *name); /* the first that is not before name */
struct object *object_find(const char *name);
struct object *object_put(const char *name, const char *headers, long long size);
void object_remove(const char *name);
void object_remove_below(const char *prefix);

struct upload *upload_begin(const char *name, const char *headers);
void upload_add(const char *id, long long size);
struct object *upload_complete(const char *id); /* NULL: no such upload */
void upload_abort(const char *id);
const char *upload_id(const struct upload *upload);

/* text.c: a string that grows, and what URLs and XML do to names. */
struct text {
    char *bytes;
    size_t used, room;
};

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(struct text *text, const char *bytes, size_t count);
void text_add_zeros(struct text *text, size_t count);
void text_add_url_encoded(struct text *text, const char *bytes);
void text_add_xml_escaped(struct text *text, const char *bytes);
void url_decode(char *text); /* in place */

/* answers.c: one request, one answer. */
struct request {
    char method[8];
    char name[2200]; /* bucket/key, decoded */
    char query[4096];
    char if_match[ETAG_SIZE + 2], if_none_match[ETAG_SIZE + 2];
    char headers[4096]; /* what an object keeps */
    long long size;     /* of the payload, without the framing of signed chunks */
    int is_copy;
};

void answer(const struct request *request, struct text *out);

/* listing.c */
void answer_list(const struct request *request, struct text *body);
/* The value of a parameter of the query, decoded, or NULL; the caller frees it. */
char *query_value(const char *query, const char *name);

/* tls.c: NULL and "" where it was compiled without OpenSSL. */
struct ssl_ctx_st *tls_context(const char *authority_file);

#endif
