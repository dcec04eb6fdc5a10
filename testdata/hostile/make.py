#!/usr/bin/env python3
"""Writes the hostile files beside it: tok/ tokenizer.json, ckpt/ state.json, shard/ token shards, gguf/ and json/, each ok_NAME or
bad_NAME. Everything is generated: no file here comes from anybody else. Run it again after a change:
    python3 testdata/hostile/make.py
"""
import json, os, shutil, struct

HERE = os.path.dirname(os.path.abspath(__file__))


def put(kind, name, data, ext):
    os.makedirs(os.path.join(HERE, kind), exist_ok=True)
    with open(os.path.join(HERE, kind, name + ext), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


for kind in ("tok", "ckpt", "shard", "gguf", "json"):
    shutil.rmtree(os.path.join(HERE, kind), ignore_errors=True)

# ---- tokenizer.json ---------------------------------------------------------------------------------------------------------
ADDED = {"id": 6, "content": "<s>", "special": True, "normalized": False, "single_word": False, "lstrip": False, "rstrip": False}
MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "1": 4, "aab": 5}, "merges": ["a b", ["a", "ab"]]}
TOK = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [ADDED], "normalizer": None,
       "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "decoder": {"type": "ByteLevel"}, "model": MODEL}


def tok(name, model=None, **change):
    t = dict(TOK, model=dict(MODEL, **(model or {})))
    t.update(change)
    put("tok", name, json.dumps(t, separators=(",", ":")), ".json")


def raw_tok(name, old, new):
    text = json.dumps(TOK, separators=(",", ":"))
    assert old in text, name
    put("tok", name, text.replace(old, new, 1), ".json")


def added(name, **change):
    tok(name, added_tokens=[dict(ADDED, **change)])


tok("ok_base")
tok("ok_no_added", added_tokens=[])
tok("ok_merges_empty", {"merges": []})
tok("ok_type_absent_values", truncation=None)
tok("ok_sparse_ids", {"vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3, "1": 40, "aab": 50}}, added_tokens=[dict(ADDED, id=1000)])
tok("ok_vocab_of_one", {"vocab": {"a": 0}, "merges": []}, added_tokens=[])
raw_tok("bad_cut", '"merges"', '')
put("tok", "bad_empty", b"", ".json")
put("tok", "bad_nul_bytes", b"\0" * 64, ".json")
put("tok", "bad_array", b"[]", ".json")
put("tok", "bad_string", b'"BPE"', ".json")
put("tok", "bad_deep", b'{"model":' * 200, ".json")
put("tok", "bad_no_model", b'{"version":"1.0"}', ".json")
put("tok", "bad_sentencepiece", b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\2", ".json")
tok("bad_version", version="2.0")
tok("bad_version_number", version=1)
tok("bad_truncation", truncation={"max_length": 5})
tok("bad_padding_fixed", padding={"strategy": {"Fixed": 128}})
put("tok", "bad_model_null", json.dumps(dict(TOK, model=None)), ".json")
tok("bad_model_unigram", {"type": "Unigram"})
tok("bad_model_wordpiece", {"type": "WordPiece"})
tok("bad_model_type_number", {"type": 7})
tok("bad_dropout", {"dropout": 0.1})
tok("bad_prefix", {"continuing_subword_prefix": "##"})
tok("bad_suffix", {"end_of_word_suffix": "</w>"})
tok("bad_vocab_list", {"vocab": ["a", "b"]})
tok("bad_vocab_empty", {"vocab": {}})
tok("bad_vocab_missing", {"vocab": None})
tok("bad_id_negative", {"vocab": dict(MODEL["vocab"], x=-1)})
tok("bad_id_huge", {"vocab": dict(MODEL["vocab"], x=2**31)})
tok("bad_id_2_64", {"vocab": dict(MODEL["vocab"], x=2**64)})
tok("bad_id_real", {"vocab": dict(MODEL["vocab"], x=7.5)})
tok("bad_id_string", {"vocab": dict(MODEL["vocab"], x="7")})
tok("bad_id_null", {"vocab": dict(MODEL["vocab"], x=None)})
tok("bad_id_twice", {"vocab": dict(MODEL["vocab"], x=0)})
raw_tok("bad_token_twice", '"a":0', '"a":0,"a":9')
tok("bad_token_empty", {"vocab": dict(MODEL["vocab"], **{"": 9})})
tok("bad_merges_missing", {"merges": None})
tok("bad_merges_object", {"merges": {"a": "b"}})
tok("bad_merge_number", {"merges": [3]})
tok("bad_merge_one_part", {"merges": ["ab"]})
tok("bad_merge_three_parts", {"merges": ["a a b"]})
tok("bad_merge_list_of_three", {"merges": [["a", "a", "b"]]})
tok("bad_merge_list_of_numbers", {"merges": [[0, 1]]})
tok("bad_merge_left_unknown", {"merges": ["z b"]})
tok("bad_merge_right_unknown", {"merges": ["a z"]})
tok("bad_merge_result_unknown", {"merges": ["b a"]})
tok("bad_merge_empty_part", {"merges": [" b"]})
tok("bad_merge_with_added", {"merges": [["<s>", "a"]]})
tok("bad_unk_unknown", {"unk_token": "<unk>"})
tok("bad_unk_number", {"unk_token": 0})
tok("bad_fuse_unk_number", {"fuse_unk": 1})
tok("bad_byte_fallback_string", {"byte_fallback": "yes"})
tok("bad_ignore_merges_null_string", {"ignore_merges": "null"})
tok("bad_added_object", added_tokens={"<s>": 6})
tok("bad_added_number", added_tokens=[6])
added("bad_added_id_negative", id=-1)
added("bad_added_id_huge", id=2**40)
added("bad_added_id_taken", id=0)
added("bad_added_content_empty", content="")
added("bad_added_content_number", content=5)
added("bad_added_special_string", special="true")
added("bad_added_lstrip_missing", lstrip=None)
tok("bad_added_other_id", added_tokens=[ADDED, dict(ADDED, id=7)])
tok("bad_normalizer_type", normalizer={"type": "NFKC"})
tok("bad_normalizer_string", normalizer="NFC")
tok("bad_normalizer_no_type", normalizer={})
tok("bad_normalizer_regex", normalizer={"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b"})
tok("bad_normalizer_pattern_empty", normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "b"})
tok("bad_normalizer_bomb", normalizer={"type": "Sequence", "normalizers": [
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 60}] * 6})
tok("bad_normalizer_many", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}] * 200})
deep = {"type": "NFC"}
for _ in range(30):
    deep = {"type": "Sequence", "normalizers": [deep]}
tok("bad_normalizer_deep", normalizer=deep)
tok("bad_prepend_long", normalizer={"type": "Prepend", "prepend": "x" * 100000})
tok("bad_pre_type", pre_tokenizer={"type": "BertPreTokenizer"})
tok("bad_pre_regex", pre_tokenizer={"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False})
tok("bad_pre_behavior", pre_tokenizer={"type": "Split", "pattern": {"Regex": " "}, "behavior": "Removed", "invert": False})
tok("bad_pre_after_bytes", pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})
tok("bad_pre_many", pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * 100})
tok("bad_metaspace_mark", pre_tokenizer={"type": "Metaspace", "replacement": "_"})
tok("bad_metaspace_scheme", pre_tokenizer={"type": "Metaspace", "prepend_scheme": "sometimes"})
tok("bad_decoder_type", decoder={"type": "WordPiece"})
tok("bad_decoder_order", decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})
tok("bad_decoder_strip_two", decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "ab", "start": 1}]})
tok("bad_decoder_strip_negative", decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": -1}]})
POST = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}}}
tok("ok_template", post_processor=POST)
tok("bad_post_type", post_processor={"type": "BertProcessing"})
tok("bad_template_id_unknown", post_processor=dict(POST, special_tokens={"<s>": {"id": "<s>", "ids": [77]}}))
tok("bad_template_id_negative", post_processor=dict(POST, special_tokens={"<s>": {"id": "<s>", "ids": [-1]}}))
tok("bad_template_ids_missing", post_processor=dict(POST, special_tokens={}))
tok("bad_template_no_text", post_processor=dict(POST, single=[{"SpecialToken": {"id": "<s>"}}]))
tok("bad_template_text_twice", post_processor=dict(POST, single=[{"Sequence": {"id": "A"}}] * 2))
tok("bad_template_text_b", post_processor=dict(POST, single=[{"Sequence": {"id": "B"}}]))
tok("bad_template_flood", post_processor=dict(POST, special_tokens={"<s>": {"id": "<s>", "ids": [6] * 3000}}))

# ---- a checkpoint's state.json ----------------------------------------------------------------------------------------------
STATE = {"version": 2, "stage": "stage1", "run": "r", "step": 12, "updates": 12, "skipped": 0, "tokens": 99, "seconds": 0.5,
         "fingerprint": 17, "loss_sum": 0.25, "loss_count": 3, "extra": [],
         "files": {"weights.safetensors": {"size": 8, "crc32c": 1}, "optim.safetensors": {"size": 8, "crc32c": 1}}}


def sealed(text):
    return text + b',\n  "crc32c": %d\n}\n' % crc32c(text)


def ckpt(name, drop=(), **change):
    s = {k: v for k, v in STATE.items() if k not in drop}
    s.update(change)
    put("ckpt", name, sealed(json.dumps(s, indent=2).encode()[:-2]), ".json")


WHOLE = sealed(json.dumps(STATE, indent=2).encode()[:-2])
ckpt("ok_base")
ckpt("ok_fingerprint_max", fingerprint=2**64 - 1)
ckpt("ok_unknown_member", later={"a": [1, 2]})
put("ckpt", "bad_empty", b"", ".json")
put("ckpt", "bad_no_checksum", json.dumps(STATE, indent=2), ".json")
put("ckpt", "bad_checksum", WHOLE.replace(b'"step": 12', b'"step": 13'), ".json")
put("ckpt", "bad_checksum_text", WHOLE.replace(b'"crc32c": 1\n', b'"crc32c": 2\n', 1), ".json")
put("ckpt", "bad_tail", WHOLE + b"\n", ".json")
put("ckpt", "bad_cut", WHOLE[:-1], ".json")
put("ckpt", "bad_checksum_padded", WHOLE.replace(b'\n  "crc32c": ', b'\n  "crc32c": 0'), ".json")
put("ckpt", "bad_only_tail", sealed(b""), ".json")
put("ckpt", "bad_array", sealed(b"["), ".json")
put("ckpt", "bad_commas", b"," * 1000, ".json")
put("ckpt", "bad_nan", sealed(json.dumps(dict(STATE, seconds=float("nan")), indent=2).encode()[:-2]), ".json")
put("ckpt", "bad_twice", sealed(json.dumps(STATE, indent=2).encode()[:-2] + b', "step": 13'), ".json")
put("ckpt", "bad_utf8", sealed(json.dumps(STATE, indent=2).encode()[:-2].replace(b"stage1", b"stage\xff")), ".json")
for key in STATE:
    if key not in ("extra", "files"):
        ckpt("bad_no_" + key, drop=[key])
        ckpt("bad_null_" + key, **{key: None})
for key in ("step", "updates", "skipped", "tokens", "loss_count"):
    ckpt("bad_negative_" + key, **{key: -1})
    ckpt("bad_huge_" + key, **{key: 2**63})
ckpt("bad_version_1", version=1)
ckpt("bad_version_3", version=3)
ckpt("bad_stage_long", stage="s" * 64)
ckpt("bad_run_long", run="r" * 5000)
ckpt("bad_stage_number", stage=1)
ckpt("bad_step_real", step=12.5)
ckpt("bad_fingerprint_negative", fingerprint=-1)
ckpt("bad_fingerprint_2_64", fingerprint=2**64)
ckpt("bad_seconds_string", seconds="0.5")

# ---- token shards -----------------------------------------------------------------------------------------------------------


def shard(name, ids=(1, 2, 3, 4), ends=(2, 4), vocab=10, width=2, tokens=None, docs=None, crc=None, magic=b"HYBTOK1\n", version=1, tail=b""):
    body = b"".join(struct.pack("<Q", e & 2**64 - 1) for e in ends) + b"".join(struct.pack("<H" if width == 2 else "<I", i) for i in ids)
    n = len(ids) if tokens is None else tokens
    d = len(ends) if docs is None else docs
    head = magic + struct.pack("<IIQQIIQ", version, width, n, d, vocab, crc32c(body) if crc is None else crc, 7)
    put("shard", name, head + body + tail, ".tok")


shard("ok_base")
shard("ok_wide", width=4, ids=(70000, 0, 1, 2), vocab=70001)
shard("ok_one_token", ids=(0,), ends=(1,), vocab=1)
put("shard", "bad_empty", b"", ".tok")
put("shard", "bad_magic_only", b"HYBTOK1\n", ".tok")
put("shard", "bad_numpy", b"\x93NUMPY\1\0v\0{'descr': '<u2', 'fortran_order': False, 'shape': (4,)}" + b" " * 60, ".tok")
shard("bad_magic", magic=b"HYBTOK2\n")
shard("bad_version_0", version=0)
shard("bad_version_2", version=2)
shard("bad_crc", crc=1)
shard("bad_tail", tail=b"\0")
shard("bad_width_3", width=3)
shard("bad_width_0", width=0)
shard("bad_width_2_31", width=2**31)
shard("bad_vocab_0", vocab=0)
shard("bad_vocab_2_24", vocab=2**24 + 1)
shard("bad_id_at_vocab", ids=(1, 2, 3, 10))
shard("bad_id_max", width=4, ids=(1, 2, 3, 2**32 - 1))
shard("bad_id_wide_negative", width=4, ids=(1, 2, 3, 2**31))
shard("bad_ends_equal", ends=(2, 2))
shard("bad_ends_falling", ends=(4, 2))
shard("bad_end_zero", ends=(0, 4))
shard("bad_end_short", ends=(1, 3))
shard("bad_end_beyond", ends=(2, 5))
shard("bad_end_2_64", ends=(2, 2**64 - 1))
shard("bad_tokens_more", tokens=5)
shard("bad_tokens_fewer", tokens=3)
shard("bad_tokens_wrap", tokens=2**63 + 4)
shard("bad_tokens_2_62", tokens=2**62)
shard("bad_documents_more", docs=3)
shard("bad_documents_wrap", docs=2**61 + 2)
shard("bad_documents_and_tokens_wrap", docs=2**61 + 2, tokens=2**63 + 4)
shard("bad_nothing", ids=(), ends=())
shard("bad_no_documents", ends=())
shard("bad_no_tokens", ids=(), ends=(0,))

# ---- GGUF -------------------------------------------------------------------------------------------------------------------
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64 = range(11)


def gstr(s):
    s = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(s)) + s


def pair(key, kind, data):
    return gstr(key) + struct.pack("<I", kind) + data


def tensor(name, dims, kind, offset, rank=None):
    return gstr(name) + struct.pack("<I", len(dims) if rank is None else rank) + b"".join(struct.pack("<Q", d) for d in dims) + \
        struct.pack("<IQ", kind, offset)


def gguf(name, pairs=(), tensors=(), data=b"", version=3, n_pairs=None, n_tensors=None, magic=b"GGUF", align=32, pad=True):
    head = magic + struct.pack("<IQQ", version, len(tensors) if n_tensors is None else n_tensors, len(pairs) if n_pairs is None else n_pairs)
    head += b"".join(pairs) + b"".join(tensors)
    put("gguf", name, head + (b"\0" * (-len(head) % align) if pad and tensors else b"") + data, ".gguf")


ARCH = pair("general.architecture", STRING, gstr("llama"))
ONE = tensor("a", [4], 0, 0)
D = b"\0" * 16
gguf("ok_nothing")
gguf("ok_version_2", [ARCH], [ONE], D, version=2)
gguf("ok_one", [ARCH], [ONE], D)
gguf("ok_padded_end", [ARCH], [ONE], D + b"\0" * 16)
gguf("ok_two", [ARCH], [ONE, tensor("b", [32], 8, 32)], D + b"\0" * 16 + b"\0" * 34)
gguf("ok_alignment_64", [pair("general.alignment", U32, struct.pack("<I", 64))], [ONE], D, align=64)
gguf("ok_strings", [pair("l", ARRAY, struct.pack("<IQ", STRING, 2) + gstr("x") + gstr(""))])
put("gguf", "bad_empty", b"", ".gguf")
put("gguf", "bad_magic_only", b"GGUF", ".gguf")
put("gguf", "bad_ggml", b"lmgg" + b"\0" * 60, ".gguf")
gguf("bad_magic", [ARCH], magic=b"GGML")
gguf("bad_version_0", [ARCH], version=0)
gguf("bad_version_1", [ARCH], version=1)
gguf("bad_version_4", [ARCH], version=4)
gguf("bad_version_big_endian", [ARCH], version=3 << 24)
gguf("bad_pairs_more", [ARCH], n_pairs=2)
gguf("bad_pairs_2_64", [ARCH], n_pairs=2**64 - 1)
gguf("bad_pairs_wrap", [ARCH], n_pairs=2**60)
gguf("bad_tensors_more", [ARCH], [ONE], D, n_tensors=2)
gguf("bad_tensors_2_64", [ARCH], [ONE], D, n_tensors=2**64 - 1)
gguf("bad_tensors_2_32", [ARCH], [ONE], D, n_tensors=2**32 + 1)
gguf("bad_key_empty", [pair("", U8, b"\1")])
gguf("bad_key_long", [pair("k" * 256, U8, b"\1")])
gguf("bad_key_2_63", [struct.pack("<Q", 2**63) + b"k" * 40])
gguf("bad_key_2_64", [struct.pack("<Q", 2**64 - 1) + b"k" * 40])
gguf("bad_key_utf8", [pair(b"\xff\xfe", U8, b"\1")])
gguf("bad_key_nul", [pair(b"a\0b", U8, b"\1")])
gguf("bad_key_twice", [pair("k", U8, b"\1"), pair("k", U8, b"\1")])
gguf("bad_value_type", [pair("k", 13, b"\0" * 8)])
gguf("bad_value_type_max", [pair("k", 2**32 - 1, b"\0" * 8)])
gguf("bad_value_cut", [pair("k", U64, b"\0" * 7)])
gguf("bad_bool_2", [pair("k", BOOL, b"\2")])
gguf("bad_string_beyond", [pair("k", STRING, struct.pack("<Q", 1000) + b"x")])
gguf("bad_string_2_64", [pair("k", STRING, struct.pack("<Q", 2**64 - 1) + b"x")])
gguf("bad_string_wraps", [pair("k", STRING, struct.pack("<Q", 2**64 - 8) + b"x" * 8)])
gguf("bad_array_type", [pair("k", ARRAY, struct.pack("<IQ", 99, 0))])
gguf("bad_array_of_arrays", [pair("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + struct.pack("<IQ", U8, 0))])
gguf("bad_array_beyond", [pair("k", ARRAY, struct.pack("<IQ", U32, 1000))])
gguf("bad_array_2_62", [pair("k", ARRAY, struct.pack("<IQ", U32, 2**62))])
gguf("bad_array_strings_2_61", [pair("k", ARRAY, struct.pack("<IQ", STRING, 2**61) + gstr("x"))])
gguf("bad_array_string_beyond", [pair("k", ARRAY, struct.pack("<IQ", STRING, 2) + gstr("x") + struct.pack("<Q", 9))])
for label, value in (("zero", 0), ("three", 3), ("2_31", 2**31), ("2_32_less_one", 2**32 - 1)):
    gguf("bad_alignment_" + label, [pair("general.alignment", U32, struct.pack("<I", value))], [ONE], D)
gguf("bad_alignment_string", [pair("general.alignment", STRING, gstr("32"))], [ONE], D)
gguf("bad_rank_0", [], [tensor("a", [], 0, 0)], D)
gguf("bad_rank_5", [], [tensor("a", [1] * 5, 0, 0)], D)
gguf("bad_rank_max", [], [tensor("a", [4], 0, 0, rank=2**32 - 1)], D)
gguf("bad_dim_0", [], [tensor("a", [0], 0, 0)], D)
gguf("bad_dim_2_63", [], [tensor("a", [2**63], 0, 0)], D)
gguf("bad_dims_wrap", [], [tensor("a", [2**32, 2**32], 0, 0)], D)
gguf("bad_dims_wrap_to_small", [], [tensor("a", [2**33, 2**31 + 1], 0, 0)], D)
gguf("bad_type_removed", [], [tensor("a", [32], 4, 0)], D)
gguf("bad_type_unknown", [], [tensor("a", [32], 999, 0)], D)
gguf("bad_type_max", [], [tensor("a", [32], 2**32 - 1, 0)], D)
gguf("bad_block_partial", [], [tensor("a", [33], 8, 0)], b"\0" * 68)
gguf("bad_block_row_partial", [], [tensor("a", [16, 2], 8, 0)], b"\0" * 34)
gguf("bad_offset_unaligned", [], [tensor("a", [4], 0, 4)], D + D)
gguf("bad_offset_beyond", [], [tensor("a", [4], 0, 64)], D)
gguf("bad_offset_2_64", [], [tensor("a", [4], 0, 2**64 - 32)], D)
gguf("bad_data_cut", [], [ONE], D[:-1])
gguf("bad_data_missing", [], [ONE], b"", pad=False)
gguf("bad_data_behind", [], [ONE], D + b"\0" * 17)
gguf("bad_hole", [], [tensor("a", [4], 0, 32)], b"\0" * 48)
gguf("bad_overlap", [], [ONE, tensor("b", [4], 0, 0)], D)
gguf("bad_tensor_twice", [], [ONE, tensor("a", [4], 0, 32)], b"\0" * 48)
gguf("bad_tensor_name_empty", [], [tensor("", [4], 0, 0)], D)
gguf("bad_tensor_name_long", [], [tensor("n" * 256, [4], 0, 0)], D)
gguf("bad_tensor_name_nul", [], [tensor("a\0", [4], 0, 0)], D)
gguf("bad_tensor_name_2_64", [], [struct.pack("<Q", 2**64 - 1) + b"a" * 40], D)

# ---- JSON beyond JSONTestSuite ----------------------------------------------------------------------------------------------
JSON = {
    "ok_deep_128": b"[" * 128 + b"]" * 128, "bad_deep_129": b"[" * 129 + b"]" * 129, "bad_deep_100000": b"[" * 100000,
    "bad_deep_objects": b'[{"":' * 5000, "ok_int64_min": b"-9223372036854775808", "ok_int64_less": b"-9223372036854775809",
    "ok_uint64_max": b"18446744073709551615", "ok_uint64_more": b"18446744073709551616", "ok_minus_zero": b"-0",
    "ok_long_number": b"1" * 20000, "ok_long_fraction": b"0." + b"1" * 20000, "ok_huge_exponent": b"1e" + b"9" * 400,
    "ok_tiny_exponent": b"1e-" + b"9" * 400, "ok_nul_escape": b'"a\\u0000b"', "bad_nul_raw": b'"a\0b"', "bad_nul_after": b"1\0",
    "bad_nan": b"NaN", "bad_infinity": b"[Infinity]", "bad_minus_infinity": b"-Infinity", "bad_plus": b"+1", "bad_dot": b".5", "bad_dot_end": b"5.",
    "bad_hex": b"0x10", "bad_octal": b"010", "bad_underscore": b"1_000", "bad_comment": b"1 // one", "bad_comment_c": b"/* */ 1",
    "bad_trailing_comma": b'{"a":1,}', "bad_single_quotes": b"{'a':1}", "bad_bare_key": b"{a:1}", "bad_two": b"1 2", "bad_bom": b"\xef\xbb\xbf1",
    "bad_utf16": "1".encode("utf-16"), "bad_overlong": b'"\xc0\xaf"', "bad_overlong_3": b'"\xe0\x80\xaf"', "bad_surrogate_utf8": b'"\xed\xa0\x80"',
    "bad_above_10ffff": b'"\xf4\x90\x80\x80"', "bad_cut_utf8": b'"\xe2\x82"', "bad_lone_high": b'"\\ud800"', "bad_lone_low": b'"\\udc00"',
    "bad_high_high": b'"\\ud800\\ud800"', "ok_pair": b'"\\ud83d\\ude00"', "bad_escape_cut": b'"\\u12', "bad_escape_x": b'"\\x41"',
    "bad_tab": b'"\t"', "ok_del": b'"\x7f"', "ok_u2028": b'"\xe2\x80\xa8"', "bad_key_twice": b'{"a":1,"a":1}', "bad_key_twice_escaped": b'{"a":1,"\\u0061":1}',
    "bad_key_empty_twice": b'{"":1,"":2}', "ok_key_nul_prefix": b'{"a":1,"a\\u0000":2}', "bad_key_twice_late": b"{" + b"".join(b'"%d":0,' % i for i in range(300)) + b'"7":0}',
    "ok_many_keys": b"{" + b",".join(b'"%d":0' % i for i in range(3000)) + b"}", "bad_unclosed": b'{"a":[1,{"b":"c"', "bad_wrong_close": b"[1}",
    "bad_only_space": b" \n\t\r", "bad_form_feed": b"\f1", "bad_nbsp": b"\xc2\xa01", "bad_true": b"True", "bad_nul_word": b"nul", "bad_colon": b'["a":1]',
}
for name, data in JSON.items():
    put("json", name, data, ".json")
