#include "null_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char NAMESPACE[] = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

char *query_value(const char *query, const char *name)
{
    size_t length = strlen(name);
    for (const char *field = query; field && *field; field = strchr(field, '&') ? strchr(field, '&') + 1 : NULL) {
        if (strncmp(field, name, length) != 0 || (field[length] && !strchr("=&", field[length])))
            continue;
        const char *value = field + length + (field[length] == '=');
        char *copy = strndup(value, strcspn(value, "&"));
        for (char *plus = copy; (plus = strchr(plus, '+'));)
            *plus = ' ';
        url_decode(copy);
        return copy;
    }
    return NULL;
}

static void add_name(struct text *body, const char *name, int encoded)
{
    if (encoded)
        text_add_url_encoded(body, name);
    else
        text_add_xml_escaped(body, name);
}

static void add_object(struct text *body, const struct object *object, const char *key, int encoded)
{
    char moment[32];
    struct tm parts;
    strftime(moment, sizeof moment, "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&object->written, &parts));
    text_add(body, "<Contents><Key>");
    add_name(body, key, encoded);
    text_add(body, "</Key><LastModified>%s</LastModified><ETag>%s</ETag><Size>%lld</Size>", moment, object->etag,
             object->size);
    text_add(body, "<StorageClass>STANDARD</StorageClass></Contents>");
}

/* Where the listing goes on: behind the last thing that the page before had. */
static char *beginning(const char *query)
{
    char *token = query_value(query, "continuation-token");
    if (token) {
        url_decode(token); /* it was encoded when it was given out, and again by the client */
        return token;
    }
    char *after = query_value(query, "start-after");
    return after ? after : query_value(query, "marker");
}

static void add_token(struct text *body, const char *query, const char *last, int encoded)
{
    int second = strstr(query, "list-type=2") != NULL;
    text_add(body, second ? "<NextContinuationToken>" : "<NextMarker>");
    if (second || encoded)
        text_add_url_encoded(body, last);
    else
        text_add_xml_escaped(body, last);
    text_add(body, second ? "</NextContinuationToken>" : "</NextMarker>");
}

struct page {
    struct text entries;
    char *last; /* key, or what sorts behind all below a common prefix */
    int count, more;
};

static struct page read_page(const struct object *object, const char *below, size_t bucket_length,
                             const char *delimiter, int most, int encoded)
{
    struct page page = {{0}, NULL, 0, 0};
    size_t length = strlen(below);
    for (; object && strncmp(object->name, below, length) == 0; page.count++) {
        if (page.count == most) {
            page.more = 1;
            break;
        }
        const char *key = object->name + bucket_length;
        const char *end = delimiter && *delimiter ? strstr(object->name + length, delimiter) : NULL;
        struct text last = {0};
        if (end) {
            char *common = strndup(key, (size_t)(end - key) + strlen(delimiter));
            text_add(&page.entries, "<CommonPrefixes><Prefix>");
            add_name(&page.entries, common, encoded);
            text_add(&page.entries, "</Prefix></CommonPrefixes>");
            text_add(&last, "%s\xff", common);
            free(common);
            struct text beyond = {0};
            text_add(&beyond, "%.*s%s", (int)bucket_length, object->name, last.bytes);
            object = object_from(beyond.bytes);
            free(beyond.bytes);
        } else {
            add_object(&page.entries, object, key, encoded);
            text_add(&last, "%s", key);
            object = object->next[0];
        }
        free(page.last);
        page.last = last.bytes;
    }
    return page;
}

void answer_list(const struct request *request, struct text *body)
{
    const char *bucket = request->name, *query = request->query;
    char *prefix = query_value(query, "prefix"), *delimiter = query_value(query, "delimiter");
    char *most = query_value(query, "max-keys"), *encoding = query_value(query, "encoding-type");
    char *begin = beginning(query);
    int encoded = encoding != NULL, limit = most ? atoi(most) : 1000;
    struct text below = {0}, from = {0};

    text_add(&below, "%s/%s", bucket, prefix ? prefix : "");
    text_add(&from, "%s/%s%s", bucket, begin ? begin : "", begin ? "\x01" : "");
    const char *start = strcmp(from.bytes, below.bytes) > 0 ? from.bytes : below.bytes;
    struct page page = read_page(object_from(start), below.bytes, strlen(bucket) + 1, delimiter, limit, encoded);

    text_add(body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult %s><Name>%s</Name><Prefix>", NAMESPACE,
             bucket);
    add_name(body, prefix ? prefix : "", encoded);
    text_add(body, "</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%s</IsTruncated>", page.count,
             limit, page.more ? "true" : "false");
    if (encoded)
        text_add(body, "<EncodingType>url</EncodingType>");
    if (page.more && page.last)
        add_token(body, query, page.last, encoded);
    if (page.entries.used)
        text_add_bytes(body, page.entries.bytes, page.entries.used);
    text_add(body, "</ListBucketResult>");

    char *values[] = {prefix, delimiter, most, encoding, begin, below.bytes, from.bytes, page.entries.bytes, page.last};
    for (size_t number = 0; number < sizeof values / sizeof *values; number++)
        free(values[number]);
}
