/* checkpoint.h - everything that a training step needs to go on, in a directory that exists completely or not at all.
 *
 *   DIR/ckpt-00000120/  weights.safetensors  every parameter, in the backend's own types, so that resuming is bit-exact
 *                       optim.safetensors    m.NAME, v.NAME (and master.NAME where weights are rounded copies) of what
 *                                            trains
 *                       state.json           stage, step, tokens, ..., size and CRC-32C of the other two, CRC-32C of
 *                                            itself
 * Protocol (ref/io/FORMATS.md 6): write ckpt-STEP.tmp/, fsync, rename, fsync DIR, only then delete old ones.
 * The reader takes the newest directory whose sizes and CRCs agree, else the next older one with a warning;
 * a torn one is never loaded. Batches are a pure function of (seed, step), so there is no random state to keep. */
#ifndef HYB_CHECKPOINT_H
#define HYB_CHECKPOINT_H
#include "method/optim.h"

typedef struct {
    char stage[64], run[64];
    int64_t step;    /* steps done; the optimiser's own count may be lower by `skipped` */
    int64_t updates; /* optimiser steps done */
    int64_t skipped; /* steps skipped because a gradient was not finite */
    int64_t tokens;
    double seconds;       /* training time so far, all sessions */
    uint64_t fingerprint; /* of the options that decide the numbers: another value is refused */
    double loss_sum;      /* of the steps since the last log row */
    int64_t loss_count;
    double *extra; /* (n_extra) what the task keeps */
    int n_extra;
} CheckpointState;

typedef void (*Warn)(void *ctx, const char *line);

/* Writes DIR/ckpt-STEP and then keeps the `keep` newest (at least 1). Weights are saved whole, optimiser state of what
 * trains. */
int checkpoint_save(const char *dir, const Optim *o, const CheckpointState *s, int keep, Err *e);
/* Loads the newest good checkpoint of DIR into o, o->m and *s (s->extra must have room for s->n_extra numbers);
 * *found = 0 and nothing changed when there is none. Removes what crashed writers left. ERR_USAGE:
 * made by another stage, by other options, or for another model. */
int checkpoint_load(const char *dir, Optim *o, CheckpointState *s, int *found, Warn warn, void *ctx, Err *e);
/* One checkpoint directory is whole: state.json is what was written, sizes and CRCs of the others agree.
 * *s without `extra`. */
int checkpoint_verify(const char *path, CheckpointState *s, Err *e);
/* The text of a state.json alone, without `extra` (fuzzing). */
int checkpoint_parse(CheckpointState *s, const char *text, size_t n, const char *path, Err *e);
/* Step of the newest directory that looks complete by name, -1 if none: cheap, not verified. */
int64_t checkpoint_newest(const char *dir);

/* 64-bit FNV-1a, for fingerprints: continue with the last value, begin with 0. */
uint64_t fingerprint_bytes(uint64_t h, const void *data, size_t n);
uint64_t fingerprint_text(uint64_t h, const char *s);
uint64_t fingerprint_real(uint64_t h, double v);
/* Continued with the backend that makes the numbers, its device's index aside: others give other bits. "cpu" leaves h
 * as it is, so that what was kept before backends counted is found. */
uint64_t fingerprint_backend(uint64_t h, const char *name);
/* 1 if both make the same bits: "cuda:1" and "cuda". */
int backend_same(const char *a, const char *b);

#endif
