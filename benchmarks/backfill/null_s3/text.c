#include "null_s3.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *room_for(struct text *text, size_t count)
{
    if (text->used + count + 1 > text->room) {
        text->room = (text->used + count + 1) * 2;
        text->bytes = realloc(text->bytes, text->room);
        if (!text->bytes)
            abort();
    }
    return text->bytes + text->used;
}

void text_add_bytes(struct text *text, const char *bytes, size_t count)
{
    memcpy(room_for(text, count), bytes, count);
    text->used += count;
    text->bytes[text->used] = 0;
}

void text_add_zeros(struct text *text, size_t count)
{
    memset(room_for(text, count), 0, count + 1);
    text->used += count;
}

void text_add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int count = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *place = room_for(text, (size_t)count);
    va_start(arguments, format);
    vsnprintf(place, (size_t)count + 1, format, arguments);
    va_end(arguments);
    text->used += (size_t)count;
}

void text_add_url_encoded(struct text *text, const char *bytes)
{
    for (; *bytes; bytes++) {
        if (isalnum((unsigned char)*bytes) || strchr("-_.~/", *bytes))
            text_add_bytes(text, bytes, 1);
        else
            text_add(text, "%%%02X", (unsigned char)*bytes);
    }
}

void text_add_xml_escaped(struct text *text, const char *bytes)
{
    for (; *bytes; bytes++) {
        if (strchr("&<>\"", *bytes))
            text_add(text, "&#%d;", *bytes);
        else
            text_add_bytes(text, bytes, 1);
    }
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit = (char)tolower((unsigned char)digit);
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

void url_decode(char *text)
{
    char *to = text;
    for (char *from = text; *from; from++) {
        int high = *from == '%' ? hex_digit(from[1]) : -1;
        int low = high >= 0 ? hex_digit(from[2]) : -1;
        if (low >= 0) {
            *to++ = (char)(high * 16 + low);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
}
