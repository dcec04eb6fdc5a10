/* card.h - the model card of a finished run, RUN/model/README.md: what the model is, from which teacher and text, which
 * layers kept their attention, what was measured, the command that makes it again, and what loads it. Everything is
 * read from the run's own files, and nothing in it is a time of day, so that equal runs have equal cards. */
#ifndef HYB_CARD_H
#define HYB_CARD_H
#include "base/text_buf.h"
#include "run/pipeline.h"

/* r, o: results and options of the run in dir. ERR_INPUT or ERR_IO as run.json is wrong or missing; OK without a card
 * where there is no RUN/model. */
int card_write(const PipelineResult *r, const PipelineOptions *o, const char *dir, Err *e);
/* "hybridize run --KEY=VALUE ...": every option of o that counts and is not as in defaults. */
void card_command(TextBuf *b, const PipelineOptions *o, const PipelineOptions *defaults);

#endif
