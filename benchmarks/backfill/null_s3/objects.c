/* A skip list: sorted for LIST, quick for PUT. */
#include "null_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct object head;
static unsigned long long written;

struct upload {
    char id[24];
    char *name, *headers;
    long long size;
    struct upload *next;
};

static struct upload *uploads;

/* Fills before[] with the last node of each level that comes before name. */
static struct object *search(const char *name, struct object **before)
{
    struct object *node = &head;
    for (int level = MAX_LEVEL - 1; level >= 0; level--) {
        while (node->next[level] && strcmp(node->next[level]->name, name) < 0)
            node = node->next[level];
        before[level] = node;
    }
    return node->next[0];
}

struct object *object_from(const char *name)
{
    struct object *before[MAX_LEVEL];
    return search(name, before);
}

struct object *object_find(const char *name)
{
    struct object *found = object_from(name);
    return found && strcmp(found->name, name) == 0 ? found : NULL;
}

static void write_into(struct object *object, const char *headers, long long size)
{
    free(object->headers);
    object->headers = strdup(headers);
    object->size = size;
    object->written = time(NULL);
    /* With a dash, as of a multipart upload, so that no client takes it for the MD5 of what it sent. */
    snprintf(object->etag, sizeof object->etag, "\"%032llx-1\"", ++written);
}

struct object *object_put(const char *name, const char *headers, long long size)
{
    struct object *before[MAX_LEVEL];
    struct object *object = search(name, before);
    if (!object || strcmp(object->name, name) != 0) {
        object = calloc(1, sizeof *object);
        object->name = strdup(name);
        for (int level = 0; level < MAX_LEVEL && (level == 0 || random() % 4 == 0); level++) {
            object->next[level] = before[level]->next[level];
            before[level]->next[level] = object;
        }
    }
    write_into(object, headers, size);
    return object;
}

void object_remove(const char *name)
{
    struct object *before[MAX_LEVEL];
    struct object *object = search(name, before);
    if (!object || strcmp(object->name, name) != 0)
        return;
    for (int level = 0; level < MAX_LEVEL; level++)
        if (before[level]->next[level] == object)
            before[level]->next[level] = object->next[level];
    free(object->name);
    free(object->headers);
    free(object);
}

void object_remove_below(const char *prefix)
{
    struct object *object;
    size_t length = strlen(prefix);
    while ((object = object_from(prefix)) && strncmp(object->name, prefix, length) == 0)
        object_remove(object->name);
}

struct upload *upload_begin(const char *name, const char *headers)
{
    struct upload *upload = calloc(1, sizeof *upload);
    snprintf(upload->id, sizeof upload->id, "upload%llu", ++written);
    upload->name = strdup(name);
    upload->headers = strdup(headers);
    upload->next = uploads;
    uploads = upload;
    return upload;
}

const char *upload_id(const struct upload *upload) { return upload->id; }

static struct upload **upload_place(const char *id)
{
    struct upload **place = &uploads;
    while (*place && strcmp((*place)->id, id) != 0)
        place = &(*place)->next;
    return place;
}

void upload_add(const char *id, long long size)
{
    struct upload *upload = *upload_place(id);
    if (upload)
        upload->size += size;
}

void upload_abort(const char *id)
{
    struct upload **place = upload_place(id), *upload = *place;
    if (!upload)
        return;
    *place = upload->next;
    free(upload->name);
    free(upload->headers);
    free(upload);
}

struct object *upload_complete(const char *id)
{
    struct upload *upload = *upload_place(id);
    if (!upload)
        return NULL;
    struct object *object = object_put(upload->name, upload->headers, upload->size);
    upload_abort(id);
    return object;
}
