#include "null_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reply {
    const char *status;
    struct text headers, body;
    long long length; /* of the object, for HEAD and GET; -1: that of the body */
};

static void fail(struct reply *reply, const char *status, const char *code)
{
    reply->status = status;
    text_add(&reply->body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>",
             code, code);
}

static int has(const char *query, const char *name)
{
    char *value = query_value(query, name);
    free(value);
    return value != NULL;
}

/* Clients that probe whether a server honours conditions, and those that rely on it, see one that does. */
static int refused(const struct request *request, struct reply *reply)
{
    if (!request->if_none_match[0] && !request->if_match[0])
        return 0;
    struct object *object = object_find(request->name);
    if ((request->if_none_match[0] && object) ||
        (request->if_match[0] && object && strcmp(request->if_match, object->etag) != 0)) {
        fail(reply, "412 Precondition Failed", "PreconditionFailed");
        return 1;
    }
    if (request->if_match[0] && !object) {
        fail(reply, "404 Not Found", "NoSuchKey");
        return 1;
    }
    return 0;
}

static void put(const struct request *request, struct reply *reply)
{
    char *upload = query_value(request->query, "uploadId");
    if (request->is_copy) {
        fail(reply, "501 Not Implemented", "NotImplemented");
    } else if (upload) {
        upload_add(upload, request->size);
        text_add(&reply->headers, "ETag: \"00000000000000000000000000000000\"\r\n");
    } else if (strchr(request->name, '/') && !refused(request, reply)) { /* else it makes a bucket; each is there */
        struct object *object = object_put(request->name, request->headers, request->size);
        text_add(&reply->headers, "ETag: %s\r\n", object->etag);
    }
    free(upload);
}

static void post(const struct request *request, struct reply *reply)
{
    char *id = query_value(request->query, "uploadId");
    char *bucket = strndup(request->name, strcspn(request->name, "/"));
    const char *key = request->name + strlen(bucket);
    if (has(request->query, "uploads")) {
        text_add(&reply->body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<InitiateMultipartUploadResult>");
        text_add(&reply->body, "<Bucket>%s</Bucket><Key>", bucket);
        text_add_xml_escaped(&reply->body, key + (*key == '/'));
        text_add(&reply->body, "</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>",
                 upload_id(upload_begin(request->name, request->headers)));
    } else if (!id) {
        fail(reply, "501 Not Implemented", "NotImplemented");
    } else if (!refused(request, reply)) {
        struct object *object = upload_complete(id);
        if (object) {
            text_add(&reply->body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CompleteMultipartUploadResult>");
            text_add(&reply->body, "<Bucket>%s</Bucket><Key>", bucket);
            text_add_xml_escaped(&reply->body, key + (*key == '/'));
            text_add(&reply->body, "</Key><ETag>");
            text_add_xml_escaped(&reply->body, object->etag);
            text_add(&reply->body, "</ETag></CompleteMultipartUploadResult>");
        } else {
            fail(reply, "404 Not Found", "NoSuchUpload");
        }
    }
    free(bucket);
    free(id);
}

static void get(const struct request *request, struct reply *reply)
{
    if (!strchr(request->name, '/')) {
        if (has(request->query, "location"))
            text_add(&reply->body, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint/>");
        else if (strcmp(request->method, "GET") == 0)
            answer_list(request, &reply->body);
        return;
    }
    struct object *object = object_find(request->name);
    if (!object) {
        fail(reply, "404 Not Found", "NoSuchKey");
        return;
    }
    char moment[64];
    struct tm parts;
    strftime(moment, sizeof moment, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&object->written, &parts));
    text_add(&reply->headers, "%sETag: %s\r\nLast-Modified: %s\r\nAccept-Ranges: bytes\r\n", object->headers, object->etag,
             moment);
    reply->length = object->size;
}

static void delete(const struct request *request, struct reply *reply)
{
    char *upload = query_value(request->query, "uploadId");
    if (upload) {
        upload_abort(upload);
    } else if (strchr(request->name, '/')) {
        object_remove(request->name);
    } else {
        struct text below = {0};
        text_add(&below, "%s/", request->name);
        object_remove_below(below.bytes);
        free(below.bytes);
    }
    reply->status = "204 No Content";
    free(upload);
}

void answer(const struct request *request, struct text *out)
{
    struct reply reply = {"200 OK", {0}, {0}, -1};
    char moment[64];
    struct tm parts;
    time_t now = time(NULL);
    int is_head = strcmp(request->method, "HEAD") == 0;
    if (strcmp(request->method, "PUT") == 0)
        put(request, &reply);
    else if (strcmp(request->method, "POST") == 0)
        post(request, &reply);
    else if (strcmp(request->method, "GET") == 0 || is_head)
        get(request, &reply);
    else if (strcmp(request->method, "DELETE") == 0)
        delete(request, &reply);
    else
        fail(&reply, "501 Not Implemented", "NotImplemented");

    strftime(moment, sizeof moment, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &parts));
    text_add(out, "HTTP/1.1 %s\r\nServer: null-s3\r\nx-amz-request-id: 0123456789ABCDEF\r\nDate: %s\r\n", reply.status,
             moment);
    if (reply.headers.used)
        text_add_bytes(out, reply.headers.bytes, reply.headers.used);
    if (reply.body.used)
        text_add(out, "Content-Type: application/xml\r\n");
    if (strcmp(reply.status, "204 No Content") != 0)
        text_add(out, "Content-Length: %lld\r\n", reply.length >= 0 ? reply.length : (long long)reply.body.used);
    text_add(out, "\r\n");
    if (reply.length > 0 && !is_head)
        text_add_zeros(out, (size_t)reply.length); /* nothing was kept */
    else if (reply.body.used && !is_head)
        text_add_bytes(out, reply.body.bytes, reply.body.used);
    free(reply.headers.bytes);
    free(reply.body.bytes);
}
