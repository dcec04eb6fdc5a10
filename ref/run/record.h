/* record.h - a struct described by a table of fields (method/memo.h) as members of a JSON object, and back. */
#ifndef HYB_RECORD_H
#define HYB_RECORD_H
#include "base/json.h"
#include "method/memo.h"

/* Members of the open object. */
void record_write(JsonOut *j, const Record *type, const void *record);
/* Zeroes *record, then fills it. ERR_INPUT naming the file and the member. */
int record_read(const Record *type, void *record, const Json *j, JsonRef object, Err *e);

#endif
